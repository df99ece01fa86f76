"""PSNR and SSIM: closed forms, and SSIM position by position in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.evaluation.reconstruction import mean_psnr, psnr, ssim


@pytest.fixture(scope="module")
def pair():
    """Smooth images and noisy, darker reconstructions, uint8 (3, 17, 14, 3)."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:17, 0:14]
    wave = np.sin(rows / 3)[None, :, :, None] * np.cos(columns / 4)[None, :, :, None]
    images = 128 + 100 * wave * rng.uniform(0.3, 1, (3, 1, 1, 3))
    others = (
        0.8 * images + rng.normal(0, 1, images.shape) * np.array([2, 10, 40])[:, None, None, None]
    )
    return tuple(np.clip(x, 0, 255).astype(np.uint8) for x in (images, others))


def slow_ssim(x, y):
    """The formula of the paper for one image, one window after the other."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window = window / window.sum()
    values = []
    for channel in range(x.shape[-1]):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = (im[i : i + 11, j : j + 11, channel].astype(np.float64) for im in (x, y))
                mean_a, mean_b = np.sum(window * a), np.sum(window * b)
                var_a, var_b = (
                    np.sum(window * (v - m) ** 2) for v, m in ((a, mean_a), (b, mean_b))
                )
                both = np.sum(window * (a - mean_a) * (b - mean_b))
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                values.append(
                    (2 * mean_a * mean_b + c1)
                    * (2 * both + c2)
                    / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
                )
    return np.mean(values)


def test_ssim_is_that_of_the_paper(pair):
    expected = [slow_ssim(x, y) for x, y in zip(*pair, strict=True)]
    found = ssim(*pair)
    assert found.shape == (3,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0 < expected[2] < expected[1] < expected[0] < 0.99
    np.testing.assert_allclose(ssim(*pair[::-1]), expected, atol=1e-5)


def test_ssim_of_equal_images_is_one(pair):
    flat = np.full((1, 11, 11, 1), 200, np.uint8)
    np.testing.assert_allclose(ssim(pair[0], pair[0]), 1, atol=1e-5)
    np.testing.assert_allclose(ssim(flat, flat), 1, atol=1e-5)


@pytest.mark.parametrize(("a", "b"), [(0, 255), (250, 255), (100, 150)])
def test_ssim_of_flat_images_compares_their_brightness(a, b):
    c1 = (0.01 * 255) ** 2
    x, y = (np.full((2, 12, 15, 3), value, np.uint8) for value in (a, b))
    np.testing.assert_allclose(
        ssim(x, y), (2 * a * b + c1) / (a * a + b * b + c1), rtol=1e-4, atol=1e-6
    )


def test_ssim_of_a_bright_texture_and_its_negative_is_negative():
    """Where float32 loses most: small differences about a large mean."""
    noise = np.random.default_rng(1).choice([-8, 8], (1, 16, 16, 1))
    x, y = (240 + noise).astype(np.uint8), (240 - noise).astype(np.uint8)
    np.testing.assert_allclose(ssim(x, y), slow_ssim(x[0], y[0]), atol=1e-4)
    assert ssim(x, y)[0] < -0.2


def test_psnr_of_known_errors():
    images = np.full((3, 4, 4, 3), 100, np.uint8)
    others = images.copy()
    others[0] += 1
    others[1] -= 10  # as uint8 the difference must not wrap
    np.testing.assert_allclose(
        psnr(images, others), [48.1308, 28.1308, 58.9226], atol=1e-3
    )  # the last: equal images, to within the rounding of uint8
    np.testing.assert_allclose(mean_psnr(images, others), psnr(images, others).mean(), rtol=1e-6)


def test_the_mean_on_the_host_reads_a_few_images_at_a_time(pair):
    class Lazy:
        """Arrays that record what was read."""

        def __init__(self, array):
            self._array, self.read = array, []
            self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

        def __len__(self):
            return len(self._array)

        def __getitem__(self, rows):
            self.read.append(rows)
            return self._array[rows]

    many = [np.concatenate([part] * 130)[:300] for part in pair]
    lazy = Lazy(many[0])
    found = mean_psnr(lazy, many[1])
    np.testing.assert_allclose(found, np.mean(psnr(*many)), rtol=1e-5)
    assert lazy.read == [slice(0, 256), slice(256, 512)]


def test_psnr_of_noise(pair):
    x, y = (a.astype(np.float64) for a in pair)
    expected = 10 * np.log10(255**2 / np.mean((x - y) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(psnr(*pair), expected, rtol=1e-5)


@pytest.mark.parametrize("metric", [psnr, ssim, mean_psnr])
def test_other_shapes_and_types_are_refused(metric, pair):
    images, others = pair
    with pytest.raises(ValueError, match="another shape"):
        metric(images, others[:2])
    with pytest.raises(ValueError, match="reconstructions must be uint8"):
        metric(images, others / 255)


def test_ssim_needs_room_for_its_window(pair):
    with pytest.raises(ValueError, match="at least 11 pixels, not 17x10"):
        ssim(*(x[:, :, :10] for x in pair))
