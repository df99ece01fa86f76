"""DINO and DINOv2: published sizes, positions, taps, parity with PyTorch and transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.dino import DINO, KINDS, placing
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.dino import layouts
from sphere_jax.weights.tensors import convert, export

SMALL = dict(width=24, depth=3, heads=2, patch=4, grid=5)
REGISTERS = SMALL | dict(registers=3, offset=0.0, antialias=True)


def network(**options):
    return Network(lambda rngs: DINO(**options, rngs=rngs))


def relative_error(result, expected):
    return np.abs(np.asarray(result) - np.asarray(expected)).max() / np.abs(expected).max()


def quick(function):
    """Compiled in little time, not to little time."""
    return jax.jit(function, compiler_options=run_once_options())


def images(height, width, batch=2):
    shape = (batch, height, width, 3)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def random_params(dino):
    """Random on every leaf: fresh biases are zero, fresh scales one."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(dino.init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.normal(0.1, 0.3, s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def small():
    dino = network(**REGISTERS)
    return dino, random_params(dino)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("dino_vits8", 21_670_272),
        ("dinov2_vits14", 22_056_576 - 384),
        ("dinov2_vits14_reg", 22_058_112 - 384),
        ("dinov2_vitb14", 86_580_480 - 768),
        ("dinov2_vitb14_reg", 86_583_552 - 768),
        ("dinov2_vitl14", 304_368_640 - 1024),
        ("dinov2_vitl14_reg", 304_372_736 - 1024),
    ],
)
def test_parameter_counts(kind, count):
    """Those of Meta's models; DINOv2's have a token, only used in training, that ours leave out."""
    params = jax.eval_shape(network(**KINDS[kind]).init, jax.random.key(0))
    assert num_parameters(params) == count


def test_shapes_and_the_norm_without_affine(small, every):
    params, tokens = small[1], every[1]
    assert [t.shape for t in tokens] == [(2, 24), (2, 3, 24), (2, 15, 24)]
    assert all(t.dtype == jnp.float32 for t in tokens)
    plain = network(**REGISTERS, final_affine=False)
    norm = params["norm"]
    rest = {name: leaf for name, leaf in params.items() if name != "norm"}
    bare = quick(plain.apply)(rest, images(12, 20))
    np.testing.assert_allclose(np.linalg.norm(bare.patches, axis=-1), np.sqrt(24), rtol=1e-3)
    for result, expected in zip(bare, tokens, strict=True):
        np.testing.assert_allclose(
            np.asarray(result) * norm["scale"] + norm["bias"], expected, atol=1e-5
        )


def test_errors_are_one_sentence(small):
    dino, params = small
    with pytest.raises(ValueError, match="multiples of 4 pixels, not 16x18"):
        jax.eval_shape(dino.apply, params, images(16, 18))
    with pytest.raises(ValueError, match="width 24 is not divisible by heads 5"):
        network(**SMALL | dict(heads=5))
    for blocks in ([2, 1], [0, 3], [-1], [1, 1], []):
        with pytest.raises(ValueError, match="must rise within 0 ... 2"):
            dino.bind(params).features(images(16, 16), blocks)


@pytest.fixture(scope="module")
def every(small):
    """What `features` gives of all blocks, and the tokens."""
    dino, params = small
    both = lambda p, x: (dino.bind(p).features(x), dino.apply(p, x))  # noqa: E731
    return quick(both)(params, images(12, 20))


@pytest.mark.parametrize(("blocks", "options"), [([1], {}), ([0, 2], {"remat": "blocks"})])
def test_taps_are_the_states_of_the_blocks(small, every, blocks, options):
    dino = network(**REGISTERS, **options)
    some = quick(lambda p, x: dino.bind(p).features(x, blocks))(small[1], images(12, 20))
    assert list(some) == [f"block_{k}" for k in blocks]
    for name, tap in some.items():
        assert tap.shape == (2, 1 + 3 + 15, 24)
        np.testing.assert_allclose(tap, every[0][name], atol=1e-5)


def test_states_differ_and_the_last_is_that_of_the_tokens(small, every):
    features, tokens = every
    assert list(features) == ["block_0", "block_1", "block_2"]
    assert relative_error(features["block_0"], features["block_1"]) > 0.1
    last = small[0].bind(small[1]).norm(features["block_2"])
    np.testing.assert_allclose(last[:, 4:], tokens.patches, atol=1e-5)


def test_gradients_reach_every_pixel_through_taps(small):
    """Against differences: the slots that later blocks write over must not leak."""
    dino, params = small
    x = images(8, 12, batch=1)
    direction = x[:, ::-1]

    def loss(x):
        taps = dino.bind(params).features(x, [0, 2])
        return jnp.mean(taps["block_0"] ** 2) + jnp.mean(jnp.sin(taps["block_2"]))

    value_and_slope = quick(jax.value_and_grad(loss))
    slope = value_and_slope(x)[1]
    assert np.all(np.abs(slope).max(axis=-1) > 0)
    step = 1e-2
    ahead, behind = (value_and_slope(x + d * direction)[0] for d in (step, -step))
    np.testing.assert_allclose(np.sum(slope * direction), (ahead - behind) / (2 * step), rtol=0.02)


def test_bfloat16_products_give_float32_near_the_float32_tokens(small, every):
    expected = every[1].patches
    low = network(**REGISTERS, dtype=jnp.bfloat16)
    result = quick(low.apply)(small[1], images(12, 20)).patches
    assert result.dtype == jnp.float32
    assert 1e-4 < relative_error(result, expected) < 0.05


def test_positions_are_added_and_interpolated(small):
    """A table that is a ramp along rows stays one, and the class token has a row of its own."""
    dino, params = small
    ramp = np.zeros((26, 24), np.float32)
    ramp[1:] = np.repeat(np.arange(5), 5)[:, None]
    ramp[0] = 7
    params = params | {"positions": ramp}
    bare = params | {"positions": 0 * ramp}
    tokens = lambda p, n, m: dino.bind(p)._tokens(jnp.zeros((1, n, m, 24)))[0][0]  # noqa: E731
    added = tokens(params, 5, 5) - tokens(bare, 5, 5)
    np.testing.assert_array_equal(added[:, 0], [7, 0, 0, 0, *ramp[1:, 0]])
    added = (tokens(params, 10, 3) - tokens(bare, 10, 3))[4:, 0].reshape(10, 3)
    np.testing.assert_allclose(added, np.repeat(added[:, :1], 3, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.diff(added[3:7, 0]), 0.5, atol=1e-5)


@pytest.mark.parametrize(("offset", "antialias"), [(0.1, False), (0.0, False), (0.0, True)])
@pytest.mark.parametrize(("size", "target"), [(37, 16), (28, 32), (5, 4)])
def test_rows_of_the_interpolation_sum_to_one(size, target, offset, antialias):
    matrix = placing(size, target, offset, antialias)
    assert matrix.shape == (target, size)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(placing(size, size, 0.0, antialias), np.eye(size), atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize(("offset", "antialias"), [(0.1, False), (0.0, False), (0.0, True)])
@pytest.mark.parametrize(("size", "target"), [(37, 16), (28, 32), (5, 4)])
def test_interpolation_is_that_of_pytorch(size, target, offset, antialias):
    """Of one axis; in float64, up to our rounding of the matrix to float32."""
    torch = pytest.importorskip("torch")
    table = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, size, size)))
    size_of = dict(scale_factor=(target + offset) / size) if offset else dict(size=(target, target))
    expected = torch.nn.functional.interpolate(
        table, mode="bicubic", antialias=antialias, **size_of
    )
    matrix = placing(size, target, offset, antialias)
    assert relative_error(matrix @ table[0, 0].numpy() @ matrix.T, expected[0, 0].numpy()) < 1e-6


@pytest.mark.parametrize("kind", ["plain", "registers"])
def test_export_inverts_convert(kind):
    dino = network(**REGISTERS if kind == "registers" else SMALL | dict(layer_scale=False))
    params = random_params(dino)
    for layout in layouts(dino):
        again = convert(export(params, layout), layouts(dino), dino)
        jax.tree.map(np.testing.assert_array_equal, again, params)


# Parity


def torch_images(x):
    import torch

    return torch.from_numpy(x).movedim(-1, 1).contiguous()


def compare(dino, tensors, x, states, output, bound=1e-4):
    """Every block and the tokens, against (B, N, width) of the original.

    Measured, depth cut to 1 or 2 and whole: at most 2e-6 of the largest value.
    """
    params = convert(tensors, layouts(dino), dino)
    features, tokens = jax.jit(lambda p, x: (dino.bind(p).features(x), dino.apply(p, x)))(params, x)
    errors = [
        relative_error(features[f"block_{k}"], state.numpy()) for k, state in enumerate(states)
    ]
    tokens = np.concatenate([tokens.cls[:, None], tokens.registers, tokens.patches], axis=1)
    errors.append(relative_error(tokens, output.numpy()))
    print(f"largest relative errors: blocks {max(errors[:-1]):.1e}, tokens {errors[-1]:.1e}")
    assert len(errors) == dino.module.depth + 1 and max(errors) <= bound


META = [
    ("dino_vits8", 2, (64, 40)),
    ("dino_vits8", 1, (224, 40)),  # one side as stored
    ("dinov2_vits14", 2, (224, 224)),
    ("dinov2_vits14", 2, (70, 112)),
    ("dinov2_vits14_reg", 2, (224, 224)),
    ("dinov2_vitb14_reg", 2, (70, 112)),
    ("dinov2_vits14_reg", 1, (518, 518)),
    ("dinov2_vitl14_reg", 1, (42, 56)),
    pytest.param("dino_vits8", 12, (224, 224), marks=pytest.mark.slow),
    pytest.param("dinov2_vits14_reg", 12, (224, 224), marks=pytest.mark.slow),
]


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "depth", "size"), META)
def test_parity_with_meta(kind, depth, size):
    pytest.importorskip("torch")
    from originals_dino import TorchDINO, randomise
    from torch_originals import published

    options = KINDS[kind] | dict(depth=depth)
    theirs = {k: v for k, v in options.items() if k not in ("offset", "antialias")}
    model, x = randomise(TorchDINO(**theirs)), images(*size, batch=1)
    states, output = model.states(torch_images(x)), model(torch_images(x))
    compare(network(**options), published(model), x, states, output)


def transformers_model(kind, depth, tmp_path):
    """A random model of transformers, and the file it writes, which has the published names."""
    from originals_dino import randomise
    from safetensors.numpy import load_file
    from torchvision_shim import importorskip

    transformers = importorskip("transformers")
    size = KINDS[kind]
    options = dict(
        hidden_size=size["width"],
        num_hidden_layers=depth,
        num_attention_heads=size["heads"],
        patch_size=size["patch"],
        image_size=size["patch"] * size["grid"],
    )
    if kind == "dino_vits8":
        options["intermediate_size"] = 4 * size["width"]
        model = transformers.ViTModel(transformers.ViTConfig(**options))
    elif "registers" in size:
        config = transformers.Dinov2WithRegistersConfig(**options)
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**options))
    randomise(model).save_pretrained(tmp_path)
    return model, load_file(tmp_path / "model.safetensors")


TRANSFORMERS = [
    ("dino_vits8", 2, (64, 40)),
    ("dinov2_vits14", 2, (224, 224)),
    ("dinov2_vitb14_reg", 2, (224, 224)),
    ("dinov2_vitb14_reg", 2, (70, 112)),
    ("dinov2_vitl14_reg", 1, (42, 56)),
    pytest.param("dinov2_vitb14_reg", 12, (224, 224), marks=pytest.mark.slow),
]


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "depth", "size"), TRANSFORMERS)
def test_parity_with_transformers(kind, depth, size, tmp_path):
    torch = pytest.importorskip("torch")
    model, tensors = transformers_model(kind, depth, tmp_path)
    x = images(*size, batch=1)
    extra = dict(interpolate_pos_encoding=True) if kind == "dino_vits8" else {}
    with torch.no_grad():
        output = model(torch_images(x), output_hidden_states=True, **extra)
    dino = network(**KINDS[kind] | dict(depth=depth, offset=0.0))
    compare(dino, tensors, x, output.hidden_states[1:], output.last_hidden_state)
