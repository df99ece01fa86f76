"""Mixer layers against numpy, and that fresh ones are the identity."""

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.nn.functional import Network
from sphere_jax.nn.mixer import Mixer, MixerLayer

N, C = 6, 4


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def test_a_layer_by_hand():
    network = Network(lambda rngs: MixerLayer(N, C, rngs=rngs))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32), network.init(jax.random.key(0))
    )
    x = rng.normal(size=(2, N, C)).astype(np.float32)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    y = rms(x.astype(np.float64), p["norm1"]["scale"]).swapaxes(1, 2)
    y = silu(y @ p["tokens_in"]["kernel"] + p["tokens_in"]["bias"])
    y = (y @ p["tokens_out"]["kernel"] + p["tokens_out"]["bias"]).swapaxes(1, 2)
    expected = x + p["token_gate"] * y
    y = rms(expected, p["norm2"]["scale"])
    y = silu(y @ p["channels_in"]["kernel"] + p["channels_in"]["bias"])
    expected = expected + p["channel_gate"] * (
        y @ p["channels_out"]["kernel"] + p["channels_out"]["bias"]
    )
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=2e-4, atol=2e-5)


def test_a_fresh_mixer_only_normalises():
    network = Network(lambda rngs: Mixer(N, C, 3, rngs=rngs))
    x = jax.random.normal(jax.random.key(0), (2, N, C))
    out = network.apply(network.init(jax.random.key(1)), x)
    np.testing.assert_allclose(out, rms(np.asarray(x), 1.0), rtol=1e-5)


def test_a_mixer_without_layers_has_a_norm():
    network = Network(lambda rngs: Mixer(N, C, 0, rngs=rngs))
    assert jax.tree.structure(network.init(jax.random.key(0))) == jax.tree.structure(
        {"norm": {"scale": jnp.zeros(C)}}
    )
