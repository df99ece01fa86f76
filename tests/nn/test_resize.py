"""Resizing: what every interpolation keeps, closed forms, parity with PyTorch."""

import jax
import numpy as np
import pytest

from sphere_jax.nn.resize import bicubic, bilinear, interpolation

KINDS = [(f, antialias) for f in (bicubic, bilinear) for antialias in (False, True)]
SIZES = [((13, 10), (7, 9)), ((6, 5), (11, 16)), ((8, 12), (8, 5))]  # down, up, one axis only


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((2, 13, 10, 3)).astype(np.float32)


@pytest.mark.parametrize(("resize", "antialias"), KINDS)
def test_same_size_is_the_identity(resize, antialias, images):
    np.testing.assert_array_equal(resize(images, 13, 10, antialias=antialias), images)


@pytest.mark.parametrize("slope", [None, -0.5, -0.75])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sizes", [(32, 28), (16, 37), (9, 2)])
def test_rows_sum_to_one(slope, antialias, sizes):
    matrix = interpolation(*sizes, slope, antialias)
    assert matrix.shape == sizes[::-1]
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("resize", "options"), [(bicubic, {"a": -0.5}), (bilinear, {})])
def test_a_ramp_stays_a_ramp_inside(resize, options):
    """Pixel centres lie at (i + 1/2) / size. Of cubics, that of slope -1/2 is exact on lines."""

    def ramp(rows, columns):
        y, x = (np.arange(n, dtype=np.float32) + 0.5 for n in (rows, columns))
        return (3 * y[:, None] / rows + x[None] / columns)[None, :, :, None]

    result = resize(ramp(32, 24), 20, 30, **options)
    inside = (slice(None), slice(2, -2), slice(3, -3))
    np.testing.assert_allclose(result[inside], ramp(20, 30)[inside], atol=1e-5)


def test_halving_by_hand():
    """A new pixel lies between two old ones: (a, 4 - a, 4 - a, a) / 8 for a cubic of slope a."""
    line = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], np.float32)
    result = bicubic(line.reshape(1, 1, 6, 1), 1, 3).ravel()
    weights = np.array([-0.75, 4.75, 4.75, -0.75]) / 8
    np.testing.assert_allclose(result[1], weights @ line[1:5], rtol=1e-6)
    np.testing.assert_allclose(result[0], weights @ [1, 1, 2, 4], rtol=1e-6)  # the edge is repeated
    np.testing.assert_allclose(bilinear(line.reshape(1, 1, 6, 1), 1, 3).ravel(), [1.5, 6, 24])


def test_antialiasing_averages_what_plain_sampling_skips():
    stripes = np.tile(np.array([1.0, -1.0, 1.0, -1.0], np.float32), 16).reshape(1, 1, 64, 1)
    assert np.abs(bilinear(stripes, 1, 7)).max() > 0.3
    assert np.abs(bilinear(stripes, 1, 7, antialias=True)).max() < 0.05


def test_integers_and_gradients(images):
    counts = (images * 50 + 128).clip(0, 255).astype(np.uint8)
    np.testing.assert_allclose(
        bicubic(counts, 6, 7), bicubic(counts.astype(np.float32), 6, 7), atol=0
    )
    slope = jax.grad(lambda x: bicubic(x, 6, 7).sum())(images)
    expected = np.outer(
        interpolation(13, 6, -0.75).sum(axis=0), interpolation(10, 7, -0.75).sum(axis=0)
    )
    np.testing.assert_allclose(slope[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize(("before", "after"), [*SIZES, ((256, 40), (224, 35))])
@pytest.mark.parametrize(("resize", "antialias"), KINDS)
def test_parity_with_pytorch(resize, antialias, before, after):
    """Measured of the largest value: 2e-7 in float64; 3e-5 in float32, where PyTorch rounds the
    places it samples at."""
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(1).standard_normal((2, *before, 3)).astype(np.float32)
    result = np.asarray(resize(images, *after, antialias=antialias))
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-4)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(images).movedim(-1, 1).to(dtype),
            size=after,
            mode=resize.__name__,
            align_corners=False,
            antialias=antialias,
        )
        expected = expected.movedim(1, -1).numpy()
        error = np.abs(result - expected).max() / np.abs(expected).max()
        assert error <= tolerance
