"""A side from whatever names it: a folder, a file, the name of a reference, arrays, an iterator."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError, quoted
from sphere_jax.evaluation.sides import references
from sphere_jax.evaluation.sides.array_side import array_side, iterator_side, npz_side
from sphere_jax.evaluation.sides.base import Side
from sphere_jax.evaluation.sides.image_folder import folder_side
from sphere_jax.evaluation.sides.record_side import holds_records, record_side


def open_side(given: Any, name: str = "", rounding: str = "", fetch: bool = False) -> Side:
    """A side of a comparison; nothing but listings and headers is read.

    Args:
      given: a path (a folder of pictures or of ArrayRecord files, one such file, an `.npz` of
        images or statistics), the name of a reference, an array uint8 (N, H, W, 1 or 3), an
        iterable of images, or a `Side`.
      name: what messages and the protocol call arrays and iterables.
      rounding: how floats in [-1, 1] become uint8, see `array_side.rounded`; "" refuses floats.
      fetch: download a named reference that is not here yet.

    Raises:
      UserError: there is no such thing, or it holds neither images nor statistics.
    """
    if isinstance(given, Side):
        return given
    if isinstance(given, (str, os.PathLike)):
        return _of_path(given, rounding, fetch)
    if hasattr(given, "shape") or (isinstance(given, (list, tuple)) and _alike(given)):
        return array_side(given, None, name or "arrays", rounding)
    if isinstance(given, Iterable):
        return iterator_side(given, name or "an iterator", rounding)
    raise UserError(
        f"{quoted(given)} is no side of a comparison; give a path, an array or an iterable."
    )


def _of_path(given: str | os.PathLike, rounding: str, fetch: bool) -> Side:
    text, path = os.fspath(given), Path(given)
    if not path.exists():
        return npz_side(references.find(text, fetch), rounding)
    if holds_records(path):
        return record_side(path)
    if path.is_dir():
        return folder_side(path)
    if path.suffix.lower() != ".npz":
        raise UserError(f"{text} is not one of a folder, an .npz and an .array_record file.")
    return npz_side(path, rounding)


def _alike(given: list | tuple) -> bool:
    """Whether images of one shape are in it, so that they make one array."""
    if any(hasattr(image, "convert") for image in given):  # Pillow's
        return False
    return len({np.shape(image) for image in given}) == 1
