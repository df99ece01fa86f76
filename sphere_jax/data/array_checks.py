"""Arrays from a file, checked; each error is one sentence."""

from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.data.array_mends import (
    doubt_about_classes,
    doubt_about_pixels,
    mend_of_images,
    mend_of_labels,
)


def check_images(images: np.ndarray, where: str) -> np.ndarray:
    """The images of a file, uint8 NHWC; grey ones may come without a channel axis.

    Raises:
      UserError: they are something else, or none.
    """
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise UserError(f"Images of {where} hold NaN or infinity; they must be uint8.")
    images = images[..., None] if images.ndim == 3 else images
    try:
        return require_images(images, f"Images of {where}")
    except ValueError as error:
        raise UserError(f"{str(error).rstrip('.')}{mend_of_images(images)}.") from error


def check_pixels(images: np.ndarray, where: str) -> None:
    """Raises UserError for uint8 images of a file that are all black or of one value, or that were
    cast without being scaled to 0..255."""
    if doubt := doubt_about_pixels(images):
        raise UserError(f"Images of {where} {doubt}.")


def check_classes(labels: np.ndarray, where: str) -> None:
    """Raises UserError for integer labels (N,) of a file that are not all of 0..K-1."""
    if doubt := doubt_about_classes(labels):
        raise UserError(f"Labels of {where} {doubt}.")


def check_labels(labels: np.ndarray, count: int, where: str) -> np.ndarray:
    """The labels of a file, int32 (count,). Raises UserError if they are something else."""
    try:
        labels = require_labels(labels, count, f"Labels of {where}")
    except ValueError as error:
        mend = mend_of_labels(np.asarray(labels), count)
        raise UserError(f"{str(error).rstrip('.')}{mend}.") from error
    if len(labels) and (labels.min() < -(2**31) or labels.max() >= 2**31):
        raise UserError(
            f"Labels of {where} run from {labels.min()} to {labels.max()}; they must be classes, "
            "numbered from 0."
        )
    return labels.astype(np.int32)


def require_images(images: Any, name: str, at_least: int = 1) -> Any:
    """`images` if they are uint8 (N, H, W, 1 or 3) with N >= `at_least`.

    They may be read where they are indexed (`lazy_pictures.Pictures`) or traced, and stay so.

    Raises:
      ValueError: otherwise.
    """
    images = images if hasattr(images, "dtype") else np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} must be uint8 images (N, H, W, 1 or 3), not {images.dtype} of shape "
            f"{images.shape}."
        )
    if len(images) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} images, not {len(images)}.")
    return images


def require_labels(
    labels: Any, count: int, name: str, num_classes: int | None = None
) -> np.ndarray:
    """`labels` if they are integers (count,), in 0..num_classes-1 where that is given.

    Raises:
      ValueError: otherwise.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name} must be {count} integer labels, not {labels.dtype} of shape {labels.shape}."
        )
    if num_classes and len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"{name} must lie in 0..{num_classes - 1}, not {labels.min()}..{labels.max()}."
        )
    return labels
