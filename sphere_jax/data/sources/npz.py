"""Images and labels in one `.npz` file."""

import contextlib

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.array_checks import check_images, check_labels, check_pixels
from sphere_jax.data.class_names import Classes
from sphere_jax.data.npz_files import check_has, read_npz
from sphere_jax.data.pictures import unpack
from sphere_jax.data.source import DataSource, Split
from sphere_jax.data.splitting import classes_among, every_fifth_of_each_class, split_arrays

KINDS = ("images", "jpeg_bytes", "offsets", "labels")
WANTED = {f"{prefix}{kind}" for prefix in ("", "train_", "test_") for kind in KINDS}
NAMES = ("class_names", "classes", "label_names")  # the first that a file has
LABELS = ("labels", "train_labels", "test_labels")


class Npz(DataSource):
    """`images` uint8 (N, H, W, C) and `labels` (N,); optional `test_images`, `test_labels` are held
    out, else every fifth of each class.

    In place of `images`, encoded pictures in one array of bytes: `jpeg_bytes`, `offsets`, with
    `train_` before these and before `labels` or not; optional `test_` ones are held out.

    `class_names` or `classes`, text (K,), are the names of labels 0..K-1. Labels are not needed
    where `config.data.labels="none"`.
    """

    def classes(self, data: DataOptions) -> Classes:
        names = _names(data.path)
        count = data.num_classes or len(names)
        if not count:
            parts = read_npz(data.path, wanted=LABELS).values()
            labels = [check_labels(part, part.size, data.path) for part in parts if part.size]
            count = classes_among(np.concatenate(labels)) if labels else 1
        return Classes(count, names)

    def load(self, data: DataOptions) -> Split:
        arrays, path = read_npz(data.path, wanted=WANTED), data.path
        images, labels = _part(arrays, "train_" if "train_jpeg_bytes" in arrays else "", data)
        if not {"test_images", "test_jpeg_bytes", "test_labels"} & arrays.keys():
            return split_arrays(images, labels, every_fifth_of_each_class(labels), data)
        test, test_labels = _part(arrays, "test_", data)
        if test.shape[1:] != images.shape[1:]:
            raise UserError(
                f"{path} has images {images.shape[1:]} but test_images {test.shape[1:]}."
            )
        held = np.arange(len(images) + len(test)) >= len(images)
        both = np.concatenate([images, test]), np.concatenate([labels, test_labels])
        return split_arrays(*both, held, data)


def _names(path: str) -> tuple[str, ...]:
    """Names of the classes; () where the file has none, or none that can be read."""
    with contextlib.suppress(UserError, UnicodeError):  # the file has images all the same
        for found in read_npz(path, wanted=NAMES).values():
            if found.ndim == 1 and found.dtype.kind in "USiu":
                texts = np.char.decode(found, "utf-8") if found.dtype.kind == "S" else found
                return tuple(map(str, texts.tolist()))
    return ()


def _part(
    arrays: dict[str, np.ndarray], prefix: str, data: DataOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels whose names begin with `prefix`."""
    if f"{prefix}jpeg_bytes" in arrays:
        images = unpack(arrays, prefix, data)
    else:
        check_has(arrays, (f"{prefix}images",), data.path)
        images = check_images(arrays[f"{prefix}images"], data.path)
        check_pixels(images, data.path)
    if data.labels == "none":
        return images, np.zeros(len(images), np.int32)
    check_has(arrays, (f"{prefix}labels",), data.path)
    return images, check_labels(arrays[f"{prefix}labels"], len(images), data.path)


SOURCE = Npz()
