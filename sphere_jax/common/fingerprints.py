"""Fingerprints: the first hex digits of a SHA-256, of all bytes or of samples.

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
OF_SAMPLES = "sampled-"  # how a fingerprint begins that is not of all bytes
SAMPLED, BLOCK = 256, 2**16  # blocks of a large file, bytes of each
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


def of_sampled_file(path: str | os.PathLike) -> str:
    """Of a file's size and of SAMPLED blocks of it, the first and the last and others evenly
    between: of all of it if it is no larger than these. It reads 16 MiB where `of_file` would read
    hundreds of GB, and notices every change of size, but not every change of a few bytes.

    Raises UserError if the file cannot be read.
    """
    try:
        size = os.path.getsize(path)
        digest = hashlib.sha256(str(size).encode())
        with open(path, "rb", buffering=0) as file:
            for i in range(SAMPLED):
                whole = size <= SAMPLED * BLOCK
                file.seek(i * BLOCK if whole else i * (size - BLOCK) // (SAMPLED - 1))
                digest.update(file.read(BLOCK))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    return f"{OF_SAMPLES}{digest.hexdigest()[:DIGITS]}"


def same_kind(fingerprint: str, other: str) -> bool:
    """Whether both are of whole contents, or both of samples, so that they can be compared."""
    return fingerprint.startswith(OF_SAMPLES) == other.startswith(OF_SAMPLES)


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
