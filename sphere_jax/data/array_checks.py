"""Arrays from a file, checked; each error is one sentence."""

from pathlib import Path

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
    """uint8 NHWC, or a UserError that says what `images` are instead."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"Images of {where} have shape {images.shape}; they must be (N,H,W,1 or 3)."
        )
    if len(images) == 0:
        raise UserError(f"{where} holds no images.")
    if images.dtype != np.uint8:
        floats = np.issubdtype(images.dtype, np.floating)
        bad = " and hold NaN or infinity" if floats and not np.isfinite(images).all() else ""
        raise UserError(f"Images of {where} are {images.dtype}{bad}; store them as uint8 0..255.")
    return images


def check_labels(labels: np.ndarray, count: int, where: str) -> np.ndarray:
    """int32 (count,), or a UserError that says what `labels` are instead."""
    if labels.shape != (count,):
        raise UserError(f"{where} has {count} examples but labels of shape {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"Labels of {where} are {labels.dtype}; store them as integers.")
    if len(labels) and (labels.min() < -(2**31) or labels.max() >= 2**31):
        raise UserError(
            f"Labels of {where} run from {labels.min()} to {labels.max()}; they must be classes, "
            "numbered from 0."
        )
    return labels.astype(np.int32)
