"""Statistics of latents as RAE, diffusers and VA-VAE publish them."""

import jax
import numpy as np
import pytest

from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.latent_statistics import layouts
from sphere_jax.weights.tensors import convert


def network(shape, second):
    return Network(lambda rngs: LatentStatistics(shape, second, rngs=rngs))


def test_rae_by_both_publishers():
    rng = np.random.default_rng(0)
    mean, var = rng.uniform(0.1, 2.0, (2, 5, 3, 4)).astype(np.float32)
    expected = {"mean": mean.transpose(1, 2, 0), "var": var.transpose(1, 2, 0)}
    std, statistics = np.sqrt(var + 1e-5), network((3, 4, 5), "var")
    for tensors in (
        {"mean": mean, "var": var},
        {"mean": mean[None], "var": var[None]},
        {"_latents_mean": mean, "_latents_std": std, "decoder.decoder_embed.bias": std},
    ):
        found = convert(tensors, layouts(statistics), statistics)
        assert found["mean"].shape == (3, 4, 5) and found["var"].dtype == np.float32
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)
    with pytest.raises(ValueError, match=r"1 missing \(var\)"):
        convert({"mean": mean}, layouts(statistics), statistics)


def test_vavae():
    statistics, values = network((4,), "std"), np.arange(4.0).reshape(1, 4, 1, 1)
    found = convert({"mean": values, "std": values + 1}, layouts(statistics), statistics)
    np.testing.assert_array_equal(found["std"], [1, 2, 3, 4])
