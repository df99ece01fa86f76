"""Images and labels in one `.npz` file."""

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.array_checks import check_images, check_labels, check_pixels
from sphere_jax.data.npz_files import check_has, read_npz
from sphere_jax.data.pictures import unpack
from sphere_jax.data.source import DataSource, Split
from sphere_jax.data.splitting import every_fifth_of_each_class, split_arrays

KINDS = ("images", "jpeg_bytes", "offsets", "labels")
WANTED = {f"{prefix}{kind}" for prefix in ("", "train_", "test_") for kind in KINDS}


class Npz(DataSource):
    """`images` uint8 (N, H, W, C) and `labels` (N,); optional `test_images`, `test_labels` are held
    out, else every fifth of each class.

    In place of `images`, encoded pictures in one array of bytes: `jpeg_bytes`, `offsets`, with
    `train_` before these and before `labels` or not; optional `test_` ones are held out.
    """

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
    check_has(arrays, (f"{prefix}labels",), data.path)
    return images, check_labels(arrays[f"{prefix}labels"], len(images), data.path)


SOURCE = Npz()
