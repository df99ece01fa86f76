"""Fingerprints: the first hex digits of a SHA-256.

Run folders, caches and weights files hold them, so a change of their values here makes all older
ones mismatch.
"""

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError

DIGITS = 16
ROWS = 4096  # of an array at a time: memory-mapped arrays stay on disk


def of_text(text: str, digits: int = DIGITS) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def of_file(path: str | os.PathLike, digits: int = DIGITS) -> str:
    """Of a file's bytes. Raises UserError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:digits]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def of_arrays(arrays: Iterable[tuple[str, Any]], header: str = "{name}{shape}{dtype}") -> str:
    """Of `(name, array)` pairs, in this order: `header` of each, then every byte.

    Of an array that is read where it is indexed, its `listing` (bytes) stands for the content.
    """
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(header.format(name=name, shape=array.shape, dtype=array.dtype).encode())
        if hasattr(array, "listing"):
            digest.update(array.listing)
            continue
        rows = array.reshape(1) if array.ndim == 0 else array
        for start in range(0, len(rows), ROWS):
            part = np.ascontiguousarray(rows[start : start + ROWS])
            digest.update(part.reshape(-1).view(np.uint8))
    return digest.hexdigest()[:DIGITS]
