"""The training and the held-out part of a data set, which never mix."""

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import log
from sphere_jax.config.options import DataOptions
from sphere_jax.data.class_names import missing_classes
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
    labels = checked_labels(labels, held, data)

    def part(rows: np.ndarray) -> Source:
        chosen = images.keep(rows) if isinstance(images, Pictures) else images[rows]
        return Source({"images": chosen, "labels": labels[rows]})

    return Split(part(~held), part(held))


def checked_labels(labels: np.ndarray, held: np.ndarray, data: DataOptions) -> np.ndarray:
    """Labels int32 (N,) of examples of which `held` (N,) are held out; all 0 if `data.labels` is
    "none". Labels 1..K become 0..K-1, and the log says so, as of classes without an example.

    Raises:
      UserError: labels outside 0..num_classes-1, or nothing held out.
    """
    where, count = data.path or data.source, data.num_classes
    if not held.any():
        raise UserError(
            f"{where} leaves nothing to hold out, every fifth of a class; it needs 5 examples of "
            "one class or more."
        )
    if data.labels == "none":
        return np.zeros_like(labels)
    low, high = int(labels.min()), int(labels.max())
    span = f"Labels of {where} run from {low} to {high}"
    from_one = _from_one(labels)
    if from_one and count in (0, high):
        log(f"{span}; here they are 0 to {high - 1}: 1 is subtracted from each")
        labels, high = labels - 1, high - 1
    elif from_one and count == high + 1:
        raise UserError(
            f"{span} and none is 0, so that class 0 would have no example; give "
            f"config.data.num_classes={high}, which subtracts 1 from each."
        )
    elif low < 0 or (count and high >= count):
        raise UserError(f"{span} but config.data.num_classes={count}.")
    missing, few = missing_classes(labels[~held], count or high + 1)
    if missing and not count:
        raise UserError(
            f"{span}, and {missing:,} of these classes have no training example, {few[0]} the "
            f"first; number classes without gaps, or give config.data.num_classes={high + 1}."
        )
    if missing:
        log(
            f"{where}: {missing:,} of {count:,} classes have no training example: "
            f"{', '.join(map(str, few))}{', ...' if missing > len(few) else ''}"
        )
    return labels


def classes_among(labels: np.ndarray) -> int:
    """The number of classes among labels (N,): 0..K-1, or 1..K, which `checked_labels` shifts."""
    return int(labels.max()) + (0 if _from_one(labels) else 1)


def _from_one(labels: np.ndarray) -> bool:
    """Whether labels (N,) are all of 1..K, K > 1."""
    return labels.min() == 1 and len(np.unique(labels)) == labels.max() > 1


def every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    """Boolean (N,): the fixed held-out fifth, the same part of every class."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held[np.flatnonzero(labels == label)[4::5]] = True
    return held
