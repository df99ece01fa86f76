"""Pictures to arrays: decoded by threads, and resized and cropped as published systems do."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from sphere_jax.common.cores import usable_cores
from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.image_choices import RESIZES
from sphere_jax.data.memory import check_fits
from sphere_jax.data.npz_files import READ_IN_BATCHES, check_has

FILTERS = {name: Image.Resampling[name.upper()] for name in RESIZES if name != "adm"}
BICUBIC, BOX = FILTERS["bicubic"], FILTERS["box"]
BLOCK = 8  # pictures that a thread decodes in one task: one 32-pixel JPEG is too little work
MOST_THREADS = 32

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextlib.contextmanager
def by_this_thread() -> Iterator[None]:
    """Pictures indexed inside are decoded by the calling thread, which is one of several: threads
    of its own would only contend with the others for the cores."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def fit(picture: Image.Image, size: int, resize: str) -> Image.Image:
    """The shorter side brought to `size` (`scaled`), then the central (size, size)."""
    if picture.size == (size, size):
        return picture
    picture = scaled(picture, size, resize)
    wide, high = picture.size
    if resize == "adm":
        left, top = (wide - size) // 2, (high - size) // 2
    else:
        left, top = round((wide - size) / 2), round((high - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def random_crop(
    picture: Image.Image, size: int, resize: str, sides: Sequence[int], draws: np.ndarray
) -> Image.Image:
    """The shorter side brought to one of `sides[0]..sides[1]`, then any (size, size) of it.

    `draws` (3,) in [0, 1) choose the side, the row and the column, each uniform over integers: with
    equal sides torchvision's Resize and RandomCrop, with `size` and `size / 0.8` ADM's random crop.
    """
    least, most = sides
    side = least + int(draws[0] * (most - least + 1))
    picture = scaled(picture, side, resize)
    top = int(draws[1] * (picture.height - size + 1))
    left = int(draws[2] * (picture.width - size + 1))
    return picture.crop((left, top, left + size, top + size))


def scaled(picture: Image.Image, size: int, resize: str) -> Image.Image:
    """The shorter side brought to `size`; `resize` is of `RESIZES`.

    "bicubic", "bilinear" and "nearest" are torchvision's Resize and CenterCrop, pixel for pixel;
    "box" and "lanczos" are Pillow's other filters. All but "nearest" are antialiased (arXiv
    2602.15030; docs/systems/sphere_encoder.md#optimization). "adm" is the preprocessing of the ADM
    reference statistics: halved with a box while the shorter side is at least 2 `size`, then
    bicubic. It rounds the longer side differently from the others.
    """
    adm = resize == "adm"
    while adm and min(picture.size) >= 2 * size:
        picture = picture.resize((picture.width // 2, picture.height // 2), BOX)
    width, height = picture.size
    short = min(width, height)
    if adm:
        scale = size / short
        wide, high = round(width * scale), round(height * scale)
    else:
        wide, high = size * width // short, size * height // short
    if (wide, high) == picture.size:
        return picture
    return picture.resize((wide, high), FILTERS.get(resize, BICUBIC))


def decode(
    file: str | PathLike | BinaryIO, name: str, data: DataOptions, draws: np.ndarray | None = None
) -> np.ndarray:
    """One encoded picture as uint8 (image_size, image_size, channels): its centre, or with `draws`
    (3,) a random crop.

    Raises:
      UserError: it cannot be decoded, or has more than 8 bits a channel; the sentence has `name`.
    """

    def pixels(picture: Image.Image) -> np.ndarray:
        if draws is None:
            fitted = fit(picture, data.image_size, data.resize)
        else:
            fitted = random_crop(picture, data.image_size, data.resize, data.random_crop, draws)
        return np.asarray(fitted).reshape(data.image_size, data.image_size, data.channels)

    return decoded(file, name, data.channels, pixels)


def decoded(
    file: str | PathLike | BinaryIO,
    name: str,
    channels: int,
    pixels: Callable[[Image.Image], np.ndarray],
) -> np.ndarray:
    """`pixels` of an encoded picture, which is grey for one channel and RGB for three.

    Transparency is dropped and EXIF rotation ignored, as in torchvision's ImageFolder and in ADM.

    Raises:
      UserError: it cannot be decoded, or has more than 8 bits a channel; the sentence has `name`.
    """
    try:
        with Image.open(file) as picture:
            mode = picture.mode
            if not mode.startswith(("I", "F")):  # converting those would clip at 255
                wanted = "L" if channels == 1 else "RGB"
                return pixels(picture if mode == wanted else picture.convert(wanted))
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image; replace or delete it.") from error
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"{name} cannot be read ({error}); replace or delete it.") from error
    raise UserError(f"{name} has more than 8 bits a channel (mode {mode}); save it with 8.")


def read_files(paths: Sequence[str | PathLike], data: DataOptions) -> np.ndarray:
    """Image files as uint8 (N, image_size, image_size, channels), as training images are read.

    Raises:
      UserError: a file that is missing, or that `decode` refuses.
    """
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"There is no image '{path}'.")
    return np.stack([decode(path, str(path), data) for path in paths])


def read_by_threads(
    read: Callable[[int], np.ndarray], count: int, shape: tuple[int, ...]
) -> np.ndarray:
    """uint8 (count, *shape) of `read(0)`, `read(1)`, ... in this order; Pillow releases the GIL.

    One core, or a caller that is one of several threads (`by_this_thread`), starts none.

    Raises:
      what `read` raises, for the first that fails.
    """
    images = np.empty((count, *shape), np.uint8)

    def fill(start: int) -> None:
        for i in range(start, min(start + BLOCK, count)):
            images[i] = read(i)

    cores = usable_cores()
    if _ALONE.get() or cores == 1:
        for start in range(0, count, BLOCK):
            fill(start)
        return images
    with ThreadPoolExecutor(min(MOST_THREADS, cores + 4)) as pool:
        for _ in pool.map(fill, range(0, count, BLOCK)):
            pass
    return images


def unpack(arrays: dict[str, np.ndarray], prefix: str, data: DataOptions) -> np.ndarray:
    """uint8 (N, image_size, image_size, channels) of encoded pictures in one array of bytes.

    Picture i is `jpeg_bytes[offsets[i] : offsets[i + 1]]`; both names have `prefix` before them.

    Raises:
      UserError: an array is missing or of the wrong kind, or a picture cannot be decoded.
    """
    content, offsets = packed(arrays, prefix, data.path)

    def read(i: int) -> np.ndarray:
        encoded = io.BytesIO(content[offsets[i] : offsets[i + 1]].tobytes())
        return decode(encoded, f"Picture {i} of {prefix}jpeg_bytes in {data.path}", data)

    shape = (data.image_size, data.image_size, data.channels)
    check_images_fit(len(offsets) - 1, data)
    return read_by_threads(read, len(offsets) - 1, shape)


def packed(arrays: dict[str, np.ndarray], prefix: str, path: str) -> tuple[np.ndarray, np.ndarray]:
    """`jpeg_bytes` and `offsets`, with `prefix` before their names, of encoded pictures.

    Raises:
      UserError: an array is missing or of the wrong kind.
    """
    names = f"{prefix}jpeg_bytes", f"{prefix}offsets"
    check_has(arrays, names, path)
    content, offsets = (arrays[name] for name in names)
    if content.dtype != np.uint8 or content.ndim != 1:
        raise UserError(
            f"{names[0]} of {path} is {content.dtype} of shape {content.shape}; it must be "
            "uint8 (bytes,)."
        )
    whole = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1 and len(offsets) > 1
    if not whole or offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any():
        raise UserError(f"{names[1]} of {path} must be N + 1 integers that never decrease.")
    if offsets[-1] > len(content):
        raise UserError(
            f"{names[1]} of {path} ends at {offsets[-1]} but {names[0]} has "
            f"{len(content)} bytes; the file is not whole."
        )
    return content, offsets


def check_images_fit(count: int, data: DataOptions) -> None:
    """Raises UserError if so many images cannot be held, once whole and once split."""
    check_fits(
        f"{count:,} images of {data.path or data.source}, decoded,",
        2 * count * data.image_size**2 * data.channels,
        READ_IN_BATCHES,
    )


def resize_arrays(images: np.ndarray, data: DataOptions) -> np.ndarray:
    """uint8 (N,H,W,C) to (N, image_size, image_size, C): padded if nearly that size, else resized;
    by `resize="adm"` always resized, as ADM does.

    Raises:
      UserError: C is not config.data.channels.
    """
    size, (height, width, channels) = data.image_size, images.shape[1:]
    if channels != data.channels:
        raise UserError(
            f"Images of {data.path or data.source} have {channels} channels but "
            f"config.data.channels={data.channels}."
        )
    if height == width == size:
        return images
    check_images_fit(len(images), data)
    nearly = height == width and 0 < size - height <= height // 4
    if nearly and data.resize != "adm":  # 28x28 digits become 32x32
        before = (size - height) // 2
        after = size - height - before
        return np.pad(images, ((0, 0), (before, after), (before, after), (0, 0)), mode="edge")

    crop = min(height, width)
    top, left = (height - crop) // 2, (width - crop) // 2
    square = (left, top, left + crop, top + crop)

    def read(i: int) -> np.ndarray:
        picture = Image.fromarray(images[i, ..., 0] if channels == 1 else images[i])
        if data.resize == "bicubic":  # oblong arrays: within a pixel of `fit`; fingerprints stay
            picture = picture.resize((size, size), BICUBIC, square)
        else:
            picture = fit(picture, size, data.resize)
        return np.asarray(picture).reshape(size, size, channels)

    return read_by_threads(read, len(images), (size, size, channels))
