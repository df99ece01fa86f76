"""Images resized as in PyTorch, by one matrix for each axis.

`jax.image.resize` has other conventions: a cubic of a = -0.5 where PyTorch has -0.75, renormalised
weights at borders where PyTorch repeats the edge, and antialiasing by default.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Num

from sphere_jax.common.shapes import AnyArray

Pixels = Num[AnyArray, "batch h w channels"]  # uint8 or floats
Resized = Float32[AnyArray, "batch {height} {width} channels"]


def bicubic(
    images: Pixels, height: int, width: int, a: float | None = None, antialias: bool = False
) -> Resized:
    """(B, H, W, C) to (B, height, width, C), float32.

    Equals `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` at that size,
    with the same `antialias`. `a` is the slope of the cubic at distance one; None takes PyTorch's,
    which is -0.75, and -0.5 with antialiasing.
    """
    slope = (-0.5 if antialias else -0.75) if a is None else a
    return _resize(images, height, width, slope, antialias)


def pillow_bicubic(images: Pixels, height: int, width: int) -> Resized:
    """uint8 (B, H, W, C) to whole numbers in 0..255, (B, height, width, C), float32.

    As Pillow's `Image.resize(resample=BICUBIC)` of 8-bit images: columns first, then rows, each
    antialiased, rounded and clipped. A pixel in some thousands is 1 off: Pillow's weights have 22
    bits.
    """
    x = images.astype(jnp.float32)
    for new_height, new_width in ((x.shape[1], width), (height, width)):
        if x.shape[1:3] != (new_height, new_width):
            x = bicubic(x, new_height, new_width, antialias=True)
            x = jnp.clip(jnp.floor(x + 0.5), 0, 255)
    return x


def bilinear(images: Pixels, height: int, width: int, antialias: bool = False) -> Resized:
    """(B, H, W, C) to (B, height, width, C), float32.

    Equals `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` at that size,
    with the same `antialias`.
    """
    return _resize(images, height, width, None, antialias)


def _resize(
    images: Pixels, height: int, width: int, slope: float | None, antialias: bool
) -> Resized:
    x = images.astype(jnp.float32)
    if height != x.shape[1]:
        rows = interpolation(x.shape[1], height, slope, antialias)
        x = jnp.einsum("oh,bhwc->bowc", rows, x, precision="highest")
    if width != x.shape[2]:
        columns = interpolation(x.shape[2], width, slope, antialias)
        x = jnp.einsum("ow,bhwc->bhoc", columns, x, precision="highest")
    return x


@lru_cache(maxsize=64)
def interpolation(
    size: int,
    new_size: int,
    slope: float | None = None,
    antialias: bool = False,
    step: float | None = None,
) -> Float32[np.ndarray, "{new_size} {size}"]:
    """(new_size, size) float32: the matrix that resamples a line of pixels; its rows sum to 1.

    `slope` is that of the cubic, None for linear. Pixel i covers [i, i + 1] at both sizes. Without
    antialiasing the edge pixels are repeated outside the line. With it, the kernel is at least as
    wide as a new pixel, and weights outside the line are dropped. `step` is the distance between
    new samples in old pixels, by default `size / new_size` (1 / `scale_factor` in PyTorch).
    """
    reach = 1 if slope is None else 2
    step = size / new_size if step is None else step
    centres = (np.arange(new_size) + 0.5) * step - 0.5  # in old pixels
    if antialias:
        stretch = max(step, 1.0)
        places = np.arange(size)[None]
        weights = _kernel((places - centres[:, None]) / stretch, slope)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    places = np.floor(centres)[:, None] + np.arange(1 - reach, 1 + reach)[None]
    weights = _kernel(places - centres[:, None], slope)
    matrix = np.zeros((new_size, size))
    rows = np.broadcast_to(np.arange(new_size)[:, None], places.shape)
    np.add.at(matrix, (rows, np.clip(places, 0, size - 1).astype(int)), weights)
    return matrix.astype(np.float32)


def _kernel(distance: np.ndarray, slope: float | None) -> np.ndarray:
    """The triangle, or the cubic convolution kernel (Keys 1981) with that slope at distance one."""
    x = np.abs(distance)
    if slope is None:
        return np.maximum(1 - x, 0.0)
    near = ((slope + 2) * x - (slope + 3)) * x**2 + 1
    far = slope * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
