"""Arrays from a file, checked; each error is one sentence."""

from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.data.memory import check_fits

READ_IN_BATCHES = (
    "put images in files that are read batch by batch, config.data.source='folder' or "
    "'array_record'"
)


def read_npz(path: str, needed: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`, without ever unpickling.

    Raises:
      UserError: no such file, not an npz, more than there is memory for, or an array of `needed`
        is missing.
    """
    if not path or not Path(path).is_file():
        raise UserError(f"There is no file '{path}'; give the path of an .npz.")
    try:
        with np.load(path, allow_pickle=False) as file:
            size = sum(member.file_size for member in file.zip.infolist())
            check_fits(f"The arrays of {path}", size, READ_IN_BATCHES)
            arrays = {name: file[name] for name in file.files}
    except UserError:
        raise
    except ValueError as error:  # numpy's message is about unpickling
        raise UserError(
            f"{path} is not a readable .npz of plain arrays; write it by numpy.savez."
        ) from error
    except (OSError, EOFError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a readable .npz ({error}).") from error
    except Exception as error:  # zipfile raises its own kinds for a damaged archive
        raise UserError(f"{path} is damaged ({error}).") from error
    check_has(arrays, needed, path)
    return arrays


def check_has(arrays: dict[str, np.ndarray], needed: tuple[str, ...], where: str) -> None:
    """Raises UserError with the first name of `needed` that `arrays` lacks."""
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise UserError(f"{where} lacks the array '{missing[0]}'; it holds {sorted(arrays)}.")


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
        raise UserError(str(error)) from error


def check_labels(labels: np.ndarray, count: int, where: str) -> np.ndarray:
    """The labels of a file, int32 (count,). Raises UserError if they are something else."""
    try:
        labels = require_labels(labels, count, f"Labels of {where}")
    except ValueError as error:
        raise UserError(str(error)) from error
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
