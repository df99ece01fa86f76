"""Arrays as a side: in memory, memory-mapped, streamed from a file, or from any iterator."""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from sphere_jax.common.errors import UserError
from sphere_jax.data.array_checks import check_images, check_labels, check_pixels
from sphere_jax.data.npz_files import mapped, read_npz, sizes_in, streamed
from sphere_jax.data.pictures import decoded, packed
from sphere_jax.evaluation.sides.base import Pictures, Pixels, Side, Stream
from sphere_jax.evaluation.sides.stored_statistics import stored_in

ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nearest": lambda x: np.round(127.5 * x + 127.5),
    "truncated": lambda x: np.trunc(127.5 * x + 128),
    "floor": lambda x: np.floor(127.5 * x + 127.5),
}
IMAGES, LABELS = ("images", "arr_0"), ("labels", "arr_1")  # ours, and what ADM's scripts write
ENCODED = ("jpeg_bytes", "train_jpeg_bytes")
CHECKED = 4096  # images whose values are looked at
IN_MEMORY = 2**30  # bytes of a compressed array, above which it is read in order instead


def rounded(images: Float[np.ndarray, "*_s"], how: str) -> UInt8[np.ndarray, "*_s"]:
    """Floats in [-1, 1] to uint8, clipped to 0..255.

    "nearest" is round(127.5 x + 127.5), "truncated" int(127.5 x + 128), "floor" int(127.5 x +
    127.5): published samplers differ in it, and FIDs with them.
    """
    return np.clip(ROUNDINGS[how](images.astype(np.float32)), 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayPictures(Pictures):
    """uint8 (N, H, W, 1 or 3), or floats in [-1, 1] that are `rounded`, as RGB."""

    name: str
    array: np.ndarray
    rounding: str = ""

    @property
    def size(self) -> tuple[int, int]:
        return self.array.shape[1:3]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, row: int) -> Pixels:
        return as_rgb(self.array[row], self.rounding, f"image {row} of {self.name}")


@dataclasses.dataclass(frozen=True, eq=False)
class PackedPictures(Pictures):
    """Encoded pictures in one array of bytes, `content[offsets[i] : offsets[i + 1]]`."""

    name: str
    content: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, row: int) -> Pixels:
        encoded = io.BytesIO(self.content[self.offsets[row] : self.offsets[row + 1]].tobytes())
        return decoded(encoded, f"Picture {row} of {self.name}", 3, np.asarray)


@dataclasses.dataclass(frozen=True, eq=False)
class IteratedPictures(Stream):
    """What an iterable yields: images (H, W, C), batches (B, H, W, C) of them, or Pillow images."""

    name: str
    given: Iterable[Any]
    rounding: str = ""

    def __iter__(self) -> Iterator[Pixels]:
        row = 0
        for item in self.given:
            array = np.asarray(item.convert("RGB") if hasattr(item, "convert") else item)
            for image in array if array.ndim == 4 else [array]:
                yield as_rgb(image, self.rounding, f"image {row} of {self.name}")
                row += 1


def as_rgb(image: Any, rounding: str, name: str) -> Pixels:
    """One image as uint8 (H, W, 3): grey is repeated; floats are rounded, if it is said how.

    Raises:
      UserError: it is something else.
    """
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if rounding and np.issubdtype(image.dtype, np.floating):
        if not np.isfinite(image).all():
            raise UserError(f"{name[:1].upper()}{name[1:]} holds NaN or infinity.")
        image = rounded(image, rounding)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        check_images(image[None], name)  # raises, and says what to change
        raise UserError(f"{name} must be uint8 (H, W, 1 or 3).")
    return np.broadcast_to(image, (*image.shape[:-1], 3))


def array_side(images: Any, labels: Any = None, name: str = "arrays", rounding: str = "") -> Side:
    """Images uint8 (N, H, W, 1 or 3), or floats in [-1, 1] with a `rounding`; with labels or not.

    Raises:
      UserError: they are something else, and what to change.
    """
    images = np.asarray(images) if not isinstance(images, np.ndarray) else images
    images = np.atleast_1d(images)
    images = images[..., None] if images.ndim == 3 else images
    if not (rounding and np.issubdtype(images.dtype, np.floating) and images.ndim == 4):
        check_images(images[:CHECKED], name)
        check_pixels(images[:CHECKED], name)
    elif np.abs(images[:CHECKED]).max(initial=0) > 2:
        raise UserError(f"Images of {name} are floats outside [-1, 1]; save 2 x - 1 of 0..1.")
    if labels is not None:
        labels = check_labels(np.asarray(labels), len(images), name)
    return Side(name, "arrays", ArrayPictures(name, images, rounding), labels)


def iterator_side(given: Iterable[Any], name: str = "an iterator", rounding: str = "") -> Side:
    """What `given` yields, in order: images, batches or Pillow images."""
    return Side(name, "iterator", IteratedPictures(name, given, rounding))


def npz_side(path: str | os.PathLike, rounding: str = "") -> Side:
    """An `.npz`: `images` or ADM's `arr_0`, with `labels` or `arr_1` or not; `jpeg_bytes` and
    `offsets` in their place; and stored statistics, which stand for the whole set.

    Raises:
      UserError: it is none, is damaged, or holds neither images nor statistics.
    """
    name, held = os.fspath(path), sizes_in(path)
    stored, protocol = stored_in(path, held)
    key = next((key for key in IMAGES if key in held), "")
    encoded = next((key for key in ENCODED if key in held), "")
    images = labels = None
    if key:
        array = mapped(path, key)
        if array is None and held[key] <= IN_MEMORY:
            array = read_npz(path, wanted=(key,))[key]
        if array is None:
            images = IteratedPictures(name, Restarting(partial(streamed, path, key)), rounding)
        else:
            images = array_side(array, None, name, rounding).images
        found = next((label for label in LABELS if label in held), "")
        if found:
            labels = _labels(read_npz(path, wanted=(found,))[found], name)
    elif encoded:
        prefix = encoded.removesuffix("jpeg_bytes")
        arrays = read_npz(path, wanted=(encoded, f"{prefix}offsets", f"{prefix}labels"))
        if f"{prefix}labels" in arrays:
            labels = _labels(arrays[f"{prefix}labels"], name)
        images = PackedPictures(name, *packed(arrays, prefix, name))
    elif not stored:
        raise UserError(
            f"{name} holds {sorted(held)[:8]}: neither images ('images', 'arr_0') nor statistics "
            "('mu', 'sigma')."
        )
    kind = "npz of images" if images else "stored statistics"
    return Side(name, kind, images, labels, stored, protocol)


def _labels(stored: np.ndarray, name: str) -> np.ndarray:
    """Labels of a file: names of classes (N,), or integers. Raises UserError."""
    named = stored.dtype.kind in "US" and stored.ndim == 1
    return stored if named else check_labels(stored, stored.size, name)


@dataclasses.dataclass(frozen=True)
class Restarting:
    """An iterable that begins anew each time."""

    start: Callable[[], Iterator[np.ndarray]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.start()
