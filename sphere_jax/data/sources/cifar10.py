"""CIFAR-10 with its official split, from the binary version or from one `.npz` of JPEGs."""

import dataclasses
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.array_checks import check_labels
from sphere_jax.data.class_names import Classes
from sphere_jax.data.npz_files import check_has, read_npz
from sphere_jax.data.pictures import unpack
from sphere_jax.data.source import DataSource, Split
from sphere_jax.data.splitting import split_arrays

SIDE = 32
TRAIN, TEST = 50_000, 10_000
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORDS = 10_000  # in each file: a label, then 32x32 red, green and blue values
RECORD_BYTES = 1 + 3 * SIDE * SIDE
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10(DataSource):
    """60,000 colour images of 32x32; the 10,000 test images are held out."""

    def classes(self, data: DataOptions) -> Classes:
        return Classes(len(NAMES), NAMES)

    def load(self, data: DataOptions) -> Split:
        path = Path(data.path)
        if data.path and path.is_dir():
            images, labels = _binary(path)
        elif path.suffix == ".npz":
            images, labels = _packed(data)
        else:
            raise UserError(
                f"config.data.path='{data.path}' must be the folder cifar-10-batches-bin of "
                "cifar-10-binary.tar.gz, or an .npz of its JPEGs."
            )
        return split_arrays(images, labels, np.arange(TRAIN + TEST) >= TRAIN, data)


def _binary(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((TRAIN + TEST, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(TRAIN + TEST, np.int32)
    for i, name in enumerate(FILES):
        file = folder / name
        if not file.is_file():
            if (folder / name.removesuffix(".bin")).exists():
                raise UserError(
                    f"{folder} holds the pickled Python version of CIFAR-10, and a pickle may run "
                    "any code; download the binary version, cifar-10-binary.tar.gz."
                )
            raise UserError(f"{folder} has no {name}; unpack cifar-10-binary.tar.gz there.")
        if file.stat().st_size != RECORDS * RECORD_BYTES:
            raise UserError(
                f"{file} has {file.stat().st_size} bytes, not {RECORDS * RECORD_BYTES}; download "
                "it again."
            )
        records = np.fromfile(file, np.uint8).reshape(RECORDS, RECORD_BYTES)
        rows = slice(i * RECORDS, (i + 1) * RECORDS)
        labels[rows] = records[:, 0]
        images[rows] = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return images, labels


def _packed(data: DataOptions) -> tuple[np.ndarray, np.ndarray]:
    arrays = read_npz(data.path)
    native = dataclasses.replace(data, image_size=SIDE, channels=3)
    images, labels = [], []
    for prefix, count in (("train_", TRAIN), ("test_", TEST)):
        check_has(arrays, tuple(prefix + n for n in ("jpeg_bytes", "offsets", "labels")), data.path)
        found = len(arrays[f"{prefix}offsets"]) - 1
        if found != count:
            raise UserError(
                f"{data.path} has {found} pictures in {prefix}jpeg_bytes; CIFAR-10 has {count}."
            )
        labels.append(check_labels(arrays[f"{prefix}labels"], count, data.path))
        images.append(unpack(arrays, prefix, native))
    return np.concatenate(images), np.concatenate(labels)


SOURCE = CIFAR10()
