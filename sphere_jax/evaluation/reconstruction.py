"""How near a reconstruction is to its image: in pixels (PSNR) and in structure (SSIM, MS-SSIM).

All take uint8 batches and give one number an image; what is reported is the mean over images. SSIM
and MS-SSIM have two forms, up to 0.02 apart, which differ at the border: "valid" windows lie inside
the image (Wang et al. 2004, pytorch-msssim), "reflected" ones are centred on every pixel, the image
mirrored beyond its border (torchmetrics).
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Shaped

from sphere_jax.data.array_checks import require_images
from sphere_jax.evaluation.preconditions import Images

PEAK = 255.0
WINDOW, SIGMA = 11, 1.5  # pixels
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents, from full resolution down
SMALLEST = (WINDOW - 1) * 2 ** (len(SCALES) - 1) + 1  # pixels a side, of MS-SSIM
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
ROUNDING_ERROR = 1 / 12  # mean square of what rounding to uint8 loses
READ = 256  # images on the host at a time
Border = Literal["valid", "reflected"]
Pixels = Shaped[Any, "..."]  # uint8 (B, H, W, 1 or 3)


@jax.jit
def psnr(images: Pixels, reconstructions: Pixels) -> Float32[jax.Array, " b"]:
    """Peak signal-to-noise ratio of each image in dB, `10 log10(255^2 / MSE)`.

    Equal images would be infinite; their squared error counts as 1/12, that of rounding to uint8,
    which is 58.9 dB.

    Args:
      images, reconstructions: uint8 (B, H, W, 1 or 3).

    Raises:
      ValueError: shapes differ, or not uint8 images.
    """
    x, y = _pair(images, reconstructions)
    error = jnp.mean(jnp.square(x - y), axis=(1, 2, 3))
    return 10 * jnp.log10(PEAK**2 / jnp.maximum(error, ROUNDING_ERROR))


def mean_psnr(images: Images, reconstructions: Images) -> float:
    """Mean over images of `psnr`, on the host in float64; both may be read where they are indexed.

    Args:
      images, reconstructions: uint8 (N, H, W, 1 or 3).

    Raises:
      ValueError: shapes differ, or not uint8 images.
    """
    _check_pair(images, reconstructions)
    found = []
    for start in range(0, len(images), READ):
        x, y = (np.asarray(part[start : start + READ]) for part in (images, reconstructions))
        error = np.square(x.astype(np.float64) - y).mean(axis=(1, 2, 3))
        found.append(10 * np.log10(PEAK**2 / np.maximum(error, ROUNDING_ERROR)))
    return float(np.mean(np.concatenate(found)))


@functools.partial(jax.jit, static_argnames="border")
def ssim(
    images: Pixels, reconstructions: Pixels, border: Border = "valid"
) -> Float32[jax.Array, " b"]:
    """Structural similarity (Wang et al. 2004) of each image, at most 1.

    Means, variances and the covariance under a Gaussian window of 11x11 pixels, sigma 1.5 (biased,
    weights of sum 1); `K1 = 0.01, K2 = 0.03`, range 255. Each channel by itself, then the mean over
    positions and channels, at full resolution.

    Args:
      images, reconstructions: uint8 (B, H, W, 1 or 3), sides of at least 11 pixels.
      border: where windows lie, see the module; "reflected" is torchmetrics' value.

    Raises:
      ValueError: shapes differ, not uint8 images, or a side too short for the window.
    """
    x, y = _pair(images, reconstructions)
    _check_sides(x, "SSIM", WINDOW)
    luminance, structure = _similarities(*_bordered(x, y, border))
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


@functools.partial(jax.jit, static_argnames="border")
def ms_ssim(
    images: Pixels, reconstructions: Pixels, border: Border = "valid"
) -> Float32[jax.Array, " b"]:
    """SSIM over five scales (Wang et al. 2003) of each image, in 0..1.

    The product over scales of the mean structure, at the coarsest of the mean SSIM, to the powers
    `SCALES`; negative means count as 0. Scales are halved by means of 2x2 pixels. "valid" is
    pytorch-msssim's value: a product for each channel, and odd sides halved with a border of zeros.
    "reflected" is torchmetrics': one product of means over channels, and odd sides cut.

    Args:
      images, reconstructions: uint8 (B, H, W, 1 or 3), sides of at least 161 pixels.

    Raises:
      ValueError: shapes differ, not uint8 images, or a side too short for the window.
    """
    x, y = _pair(images, reconstructions)
    _check_sides(x, "MS-SSIM", SMALLEST)
    valid, product = border == "valid", None
    axes = (1, 2) if valid else (1, 2, 3)
    for scale, power in enumerate(SCALES):
        # The structure alone is that of windows inside the image, in either form.
        last = scale == len(SCALES) - 1
        luminance, structure = _similarities(*_bordered(x, y, border if last else "valid"))
        found = jnp.mean(luminance * structure if last else structure, axis=axes)
        found = jnp.maximum(found, 0.0) ** power
        product = found if product is None else product * found
        x, y = (_halved(image, zeros=valid) for image in (x, y))
    return product.mean(-1) if valid else product


def _check_pair(images, reconstructions) -> None:
    require_images(images, "images")
    require_images(reconstructions, "reconstructions")
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"Reconstructions {reconstructions.shape} are compared with images of another shape, "
            f"{images.shape}."
        )


def _pair(images, reconstructions) -> tuple[jax.Array, jax.Array]:
    """Both as float32 0..255."""
    _check_pair(images, reconstructions)
    return images.astype(jnp.float32), reconstructions.astype(jnp.float32)


def _check_sides(x: jax.Array, name: str, least: int) -> None:
    height, width = x.shape[1:3]
    if min(height, width) < least:
        raise ValueError(f"{name} needs sides of at least {least} pixels, not {height}x{width}.")


def _bordered(x: jax.Array, y: jax.Array, border: Border) -> tuple[jax.Array, jax.Array]:
    if border == "valid":
        return x, y
    reach = ((0, 0), *[(WINDOW // 2, WINDOW // 2)] * 2, (0, 0))
    return jnp.pad(x, reach, mode="reflect"), jnp.pad(y, reach, mode="reflect")


def _similarities(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Luminance and structure (with contrast) under every window that lies inside."""
    # Second moments about the middle of the range, where float32 loses least to their difference.
    x, y = x - PEAK / 2, y - PEAK / 2
    mean_x, mean_y, xx, yy, xy = (_blur(m) for m in (x, y, x * x, y * y, x * y))
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x**2 + yy - mean_y**2
    mean_x, mean_y = mean_x + PEAK / 2, mean_y + PEAK / 2
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return luminance, structure


def _halved(x: jax.Array, zeros: bool) -> jax.Array:
    """Means of 2x2 pixels; with `zeros`, an odd side has one more at both ends, else one less."""
    height, width = x.shape[1:3]
    if zeros:
        x = jnp.pad(x, ((0, 0), (height % 2,) * 2, (width % 2,) * 2, (0, 0)))
    height, width = (side // 2 * 2 for side in x.shape[1:3])
    x = x[:, :height, :width]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


@functools.cache
def _window() -> np.ndarray:
    """(11,), of sum 1; the window is its product with itself."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, H - 10, W - 10, C), down and then across, by shifted sums: a grouped
    convolution runs through a slow loop on CPU."""
    height, width = (side - WINDOW + 1 for side in x.shape[1:3])
    x = sum(float(w) * x[:, i : i + height] for i, w in enumerate(_window()))
    return sum(float(w) * x[:, :, i : i + width] for i, w in enumerate(_window()))
