"""The training and the held-out part of a data set, which never mix."""

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.lazy_pictures import Pictures
from sphere_jax.data.pictures import resize_arrays
from sphere_jax.data.source import Source, Split


def split_arrays(
    images: np.ndarray, labels: np.ndarray, held: np.ndarray, data: DataOptions
) -> Split:
    """A data set in memory, brought to its size: images uint8 (N, H, W, C), labels int32 (N,),
    and which of them are held out, boolean (N,).

    Raises:
      UserError: other channels or labels than `data` says, or nothing held out.
    """
    return split_images(resize_arrays(images, data), labels, held, data)


def split_images(
    images: np.ndarray | Pictures, labels: np.ndarray, held: np.ndarray, data: DataOptions
) -> Split:
    """`split_arrays` of images that have their size; `Pictures` are read where they are indexed.

    Raises:
      UserError: other labels than `data` says, or nothing held out.
    """
    check_split(labels, held, data.num_classes, data.path or data.source)

    def part(rows: np.ndarray) -> Source:
        chosen = images.keep(rows) if isinstance(images, Pictures) else images[rows]
        return Source({"images": chosen, "labels": labels[rows]})

    return Split(part(~held), part(held))


def check_split(labels: np.ndarray, held: np.ndarray, num_classes: int, where: str) -> None:
    """Raises UserError for labels outside 0..num_classes-1, and for nothing held out."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"Labels of {where} run from {labels.min()} to {labels.max()} but "
            f"config.data.num_classes={num_classes}."
        )
    if not held.any():
        raise UserError(
            f"{where} leaves nothing to hold out, every fifth of a class; it needs 5 examples of "
            "one class or more."
        )


def every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    """Boolean (N,): the fixed held-out fifth, the same part of every class."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held[np.flatnonzero(labels == label)[4::5]] = True
    return held
