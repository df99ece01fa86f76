"""LightningDiT: parameter counts (docs/systems/shared.md#parameter-counts) and the block equations
of K in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.lightning_dit import SIZES, LightningDiT
from sphere_jax.nn.functional import Network, num_parameters

TINY = dict(latent_shape=(4, 2, 3), patch=1, width=16, depth=2, heads=2, num_classes=5)


def count(latent_shape, size, num_classes, **options):
    depth, width, heads = SIZES[size]
    network = Network(
        lambda rngs: LightningDiT(
            latent_shape, 1, width, depth, heads, num_classes, rngs=rngs, **options
        )
    )
    parameters = num_parameters(jax.eval_shape(network.init, jax.random.key(0)))
    return parameters + network.module.fixed_table_size


@pytest.mark.parametrize(
    ("size", "channels", "expected"),
    [
        ("B", 768, 131_884_288),
        ("B", 1024, 132_277_760),
        ("B", 32, 130_753_056),
        ("L", 768, 459_923_424),
        ("L", 1024, 460_447_968),
        ("L", 32, 458_415_360),
        ("XL", 768, 677_248_384),
        ("XL", 1024, 677_838_464),
        ("XL", 32, 675_551_904),
    ],
)
def test_parameter_counts(size, channels, expected):
    """The counts of J are those with Fourier time features and no QK-norm."""
    assert count((16, 16, channels), size, 1000, time_embedding="fourier") == expected


@pytest.mark.parametrize(
    ("size", "classes", "expected"),
    [("XL", 1000, 675_160_896), ("B", 3, 130_086_144), ("B", 102, 130_162_176)],
)
def test_parameter_counts_of_the_denoiser_without_time(size, classes, expected):
    options = dict(time_embedding=None, qk_norm=True, gate_bias=False)
    assert count((16, 16, 768), size, classes, **options) == expected


@pytest.mark.parametrize(
    ("time_embedding", "qk_norm"), [("sinusoid", False), ("fourier", True), (None, True)]
)
def test_forward_against_numpy(time_embedding, qk_norm):
    network = Network(
        lambda rngs: LightningDiT(**TINY, qk_norm=qk_norm, time_embedding=time_embedding, rngs=rngs)
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.2 * rng.standard_normal(x.shape).astype(np.float32),
        jax.jit(network.init)(jax.random.key(0)),
    )
    z = rng.standard_normal((3, 4, 2, 3)).astype(np.float32)
    t, labels = np.array([0.1, 0.5, 1.0], np.float32), np.array([0, 3, 5], np.int32)
    result = np.asarray(jax.jit(network.apply)(params, z, t, labels))
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected = forward(exact, z.astype(np.float64), t.astype(np.float64), labels)
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


def forward(params, z, t, labels, heads=2):
    """docs/systems/shared.md#blocks, one token position and one head at a time where that is the
    plainest."""
    linear = lambda p, x: x @ p["kernel"] + p["bias"]  # noqa: E731
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731

    def rms(p, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]

    batch, rows, columns, channels = z.shape
    width = params["patches"]["kernel"].shape[1]
    head_dim = width // heads
    grid = [(row, column) for row in range(rows) for column in range(columns)]

    c = params["label"]["table"][labels]
    if "time" in params:
        if "frequencies" in params["time"]:
            angles = 2 * np.pi * np.outer(t, params["time"]["frequencies"])
            features = np.concatenate([np.sin(angles), np.cos(angles)], 1)
        else:
            angles = np.outer(t, 10000.0 ** (-np.arange(128) / 128))
            features = np.concatenate([np.cos(angles), np.sin(angles)], 1)
        c = c + linear(params["time"]["output"], silu(linear(params["time"]["hidden"], features)))
    c = silu(c)[:, None]

    positions = np.zeros((len(grid), width))
    for token, (row, column) in enumerate(grid):
        f = 10000.0 ** (-np.arange(width // 4) / (width // 4))
        positions[token] = np.concatenate(
            [np.sin(column * f), np.cos(column * f), np.sin(row * f), np.cos(row * f)]
        )

    def rotated(x):  # (B, N, head_dim)
        f = 10000.0 ** (-2 * np.arange(head_dim // 4) / (head_dim / 2))
        y = np.empty_like(x)
        for token, (row, column) in enumerate(grid):
            for pair, angle in enumerate(np.concatenate([row * f, column * f])):
                a, b = x[:, token, 2 * pair], x[:, token, 2 * pair + 1]
                y[:, token, 2 * pair] = a * np.cos(angle) - b * np.sin(angle)
                y[:, token, 2 * pair + 1] = b * np.cos(angle) + a * np.sin(angle)
        return y

    x = linear(params["patches"], z.reshape(batch, -1, channels)) + positions
    layers = params["blocks"]["layers"]
    for i in range(layers["modulation"]["bias"].shape[0]):
        p = jax.tree.map(lambda leaf, i=i: leaf[i], layers)
        b1, s1, g1, b2, s2, g2 = np.split(linear(p["modulation"], c), 6, -1)
        qkv = linear(p["attention"]["qkv"], rms(p["norm1"], x) * (1 + s1) + b1)
        out = []
        for head in range(heads):
            q, k, v = (
                part[..., head * head_dim : (head + 1) * head_dim] for part in np.split(qkv, 3, -1)
            )
            if "q_norm" in p["attention"]:
                q, k = rms(p["attention"]["q_norm"], q), rms(p["attention"]["k_norm"], k)
            scores = np.exp(rotated(q) @ rotated(k).swapaxes(1, 2) / np.sqrt(head_dim))
            out.append(scores / scores.sum(-1, keepdims=True) @ v)
        x = x + g1 * linear(p["attention"]["projection"], np.concatenate(out, -1))
        hidden = linear(p["mlp"]["expand"], rms(p["norm2"], x) * (1 + s2) + b2)
        gate, value = np.split(hidden, 2, -1)
        x = x + g2 * linear(p["mlp"]["contract"], silu(gate) * value)
    shift, scale = np.split(linear(params["head"]["modulation"], c), 2, -1)
    x = linear(params["head"]["output"], rms(params["head"]["norm"], x) * (1 + scale) + shift)
    return x.reshape(batch, rows, columns, channels)


def test_without_time_and_classes_blocks_are_not_modulated():
    network = Network(
        lambda rngs: LightningDiT(**(TINY | {"num_classes": 0}), time_embedding=None, rngs=rngs)
    )
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert "modulation" not in params["blocks"]["layers"] and "time" not in params
    z = jnp.ones((2, 4, 2, 3))
    assert jax.eval_shape(network.apply, params, z).shape == z.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "not divisible by heads"),
        ({"width": 12, "heads": 2}, "head dimension divisible by 4"),
        ({"time_embedding": "table"}, "time embedding"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Network(lambda rngs: LightningDiT(**(TINY | options), rngs=rngs))
