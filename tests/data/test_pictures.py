"""Decoding and resizing, against plain Pillow calls and an independent resampler in numpy."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.pictures import (
    decode,
    fit,
    random_crop,
    read_by_threads,
    resize_arrays,
    scaled,
)

BICUBIC, NEAREST, BOX = (Image.Resampling[name] for name in ("BICUBIC", "NEAREST", "BOX"))


def noise(width, height, seed=0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def assert_same(picture, expected):
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize(("resize", "resample"), [("bicubic", BICUBIC), ("nearest", NEAREST)])
def test_fit_is_a_resize_and_a_centre_crop(resize, resample):
    # torchvision: 32 * 301 / 203 = 47.4 is cut to 47, and the crop begins at 7.5, rounded to 8
    wide = noise(301, 203)
    assert_same(fit(wide, 32, resize), wide.resize((47, 32), resample).crop((8, 0, 40, 32)))
    tall = noise(203, 301)
    assert_same(fit(tall, 32, resize), tall.resize((32, 47), resample).crop((0, 8, 32, 40)))
    small = noise(5, 4)
    assert_same(fit(small, 8, resize), small.resize((10, 8), resample).crop((1, 0, 9, 8)))


def test_adm_halves_first():
    wide = noise(301, 203)
    halved = wide.resize((150, 101), BOX).resize((75, 50), BOX)
    assert_same(fit(wide, 32, "adm"), halved.resize((48, 32), BICUBIC).crop((8, 0, 40, 32)))
    twice = noise(64, 64)
    assert_same(fit(twice, 32, "adm"), twice.resize((32, 32), BOX))
    nearly = noise(63, 63)
    assert_same(fit(nearly, 32, "adm"), nearly.resize((32, 32), BICUBIC))


def test_the_two_crops_of_an_odd_margin():
    picture = noise(47, 32)
    assert_same(fit(picture, 32, "bicubic"), picture.crop((8, 0, 40, 32)))
    assert_same(fit(picture, 32, "adm"), picture.crop((7, 0, 39, 32)))


def test_random_crops_are_any_part_of_the_resized_picture():
    picture, draws = noise(60, 40), np.random.default_rng(1).random((400, 3))
    resized = {side: scaled(picture, side, "bicubic") for side in (20, 21, 22)}
    parts = {
        np.asarray(image.crop((left, top, left + 16, top + 16))).tobytes(): (side, top, left)
        for side, image in resized.items()
        for top in range(image.height - 15)
        for left in range(image.width - 15)
    }
    found = [parts[np.asarray(random_crop(picture, 16, "bicubic", (20, 22), d)).tobytes()]
             for d in draws]  # fmt: skip
    sides, tops, lefts = map(np.array, zip(*found, strict=True))
    assert set(sides) == {20, 21, 22}
    for side, image in resized.items():
        assert set(tops[sides == side]) == set(range(image.height - 15))
        assert lefts[sides == side].max() == image.width - 16 and lefts.min() == 0
    whole = fit(picture, 40, "bicubic")
    assert_same(random_crop(whole, 40, "bicubic", (40, 40), np.array([0.9, 0.9, 0.9])), whole)


def adm_by_pillow(picture, size):
    """ADM's centre crop by plain Pillow calls, of a picture of any size."""
    width, height = picture.size
    while min(width, height) >= 2 * size:
        width, height = width // 2, height // 2
        picture = picture.resize((width, height), resample=BOX)
    factor = size / min(width, height)
    width, height = round(width * factor), round(height * factor)
    pixels = np.array(picture.resize((width, height), resample=BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize("size", [8, 32, 33])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_adm_bit_for_bit(size, mode):
    """At every ratio: larger, smaller, of the same size, oblong either way, odd margins."""
    sides = (5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 66, 101, 132, 150, 267)
    for width, height in zip(sides * 3, sides[3:] + sides + sides[::-1] + sides[:3], strict=True):
        picture = noise(width, height, width).convert(mode)
        found = decode(
            encoded(picture, "PNG"), "x", data(size, 1 if mode == "L" else 3, resize="adm")
        )
        assert_same(found.squeeze(), adm_by_pillow(picture, size))


def box(x):
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def bicubic(x, a=-0.5):
    x = np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def resampled(image, sides, kernel):
    """(H, W, C) to (*sides, C): an antialiased filter along rows, then along columns; Pillow rounds
    to 8 bits after each, halves upwards.
    """
    for axis in (1, 0):
        scale = image.shape[axis] / sides[axis]
        centre = (np.arange(sides[axis]) + 0.5) * scale
        offset = np.arange(image.shape[axis]) + 0.5 - centre[:, None]
        weights = kernel(offset / max(scale, 1))
        weights /= weights.sum(1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
        image = np.floor(image + 0.5).clip(0, 255)
    return image


def adm(image, size):
    while min(image.shape[:2]) >= 2 * size:
        image = resampled(image, (image.shape[0] // 2, image.shape[1] // 2), box)
    scale = size / min(image.shape[:2])
    image = resampled(image, [round(side * scale) for side in image.shape[:2]], bicubic)
    top, left = (math.floor((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


# Odd sides here halve to odd ones: else a pixel lies just between two boxes, and rounding decides.
@pytest.mark.parametrize("shape", [(295, 207), (207, 295), (64, 64), (150, 95), (20, 31)])
def test_adm_against_numpy(shape):
    picture = noise(*shape)
    expected = adm(np.asarray(picture, float), 32)
    found = np.asarray(fit(picture, 32, "adm"), float)
    assert np.abs(found - expected).max() <= 1  # Pillow's weights are fixed-point numbers
    assert (found != expected).mean() < 0.01


def encoded(picture: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file


def data(size=16, channels=3, **options) -> DataOptions:
    return DataOptions(source="folder", image_size=size, channels=channels, **options)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_decoding_is_plain_pillow(kind, channels, mode):
    file = encoded(noise(70, 50), kind)
    whole = Image.open(file).convert(mode)
    expected = whole.resize((22, 16), BICUBIC).crop((3, 0, 19, 16))
    found = decode(file, "x", data(channels=channels))
    assert found.shape == (16, 16, channels) and found.dtype == np.uint8
    assert_same(found, np.asarray(expected).reshape(16, 16, channels))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(mode):
    picture = noise(16, 16).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert_same(decode(encoded(picture, kind), "x", data()), picture.convert("RGB"))


def test_undecodable_content_is_named():
    def refusal(content) -> str:
        return refusal_of(decode, io.BytesIO(content), "cat.jpg", data())

    whole = encoded(noise(40, 40), "JPEG").getvalue()
    assert "cat.jpg cannot be read" in refusal(whole[: len(whole) // 2])
    for content in (b"", b"not an image", whole[2:]):
        assert "cat.jpg is not an image" in refusal(content)
    damaged = bytearray(encoded(noise(40, 40), "PNG").getvalue())
    damaged[60] ^= 255
    assert "cat.jpg cannot be read" in refusal(bytes(damaged))
    deep = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 256)
    assert "more than 8 bits a channel" in refusal(encoded(deep, "PNG").getvalue())


@pytest.mark.parametrize("count", [0, 1, 8, 9, 100])
def test_threads_keep_the_order(count):
    images = read_by_threads(lambda i: np.full((2, 3), i), count, (2, 3))
    np.testing.assert_array_equal(images[:, 1, 2], np.arange(count))


def test_threads_raise_the_first_failure():
    def read(i):
        if i >= 30:
            raise UserError(f"file {i}")
        return np.zeros(1)

    for _ in range(5):
        with pytest.raises(UserError, match="^file 30$"):
            read_by_threads(read, 200, (1,))


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_resampled_as_configured(channels):
    picture = noise(40, 40).convert("L" if channels == 1 else "RGB")
    images = np.asarray(picture).reshape(1, 40, 40, channels)

    def found(size, resize):
        return resize_arrays(images, data(size, channels, resize=resize)).squeeze()

    assert_same(found(16, "bicubic"), picture.resize((16, 16), BICUBIC))
    assert_same(found(16, "nearest"), picture.resize((16, 16), NEAREST))
    halved = picture.resize((20, 20), BOX)
    assert_same(found(16, "adm"), halved.resize((16, 16), BICUBIC))
    assert_same(found(44, "adm"), picture.resize((44, 44), BICUBIC))
    for resize in ("bicubic", "nearest"):
        np.testing.assert_array_equal(found(44, resize)[2:-2, 2:-2], images.squeeze())
    assert resize_arrays(images, data(40, channels)) is images


def test_oblong_arrays_lose_their_margins():
    picture = noise(40, 31)
    images = np.asarray(picture)[None]
    square = picture.resize((16, 16), BICUBIC, (4, 0, 35, 31))
    assert_same(resize_arrays(images, data(16))[0], square)
    assert_same(resize_arrays(images, data(16, resize="adm"))[0], fit(picture, 16, "adm"))
