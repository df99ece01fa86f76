"""DINOv3: published sizes, rotations, layouts, parity with PyTorch and transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.dinov3 import KINDS, DINOv3, axial_rotation
from sphere_jax.models.vit import rotate_halves
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.dinov3 import layouts
from sphere_jax.weights.tensors import convert, export

SMALL = dict(width=32, depth=2, heads=2, patch=4, registers=3)


def network(**options):
    return Network(lambda rngs: DINOv3(**options, rngs=rngs))


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


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("dinov3_vits16", 21_596_544 - 384),
        ("dinov3_vits16plus", 28_692_864 - 384),
        ("dinov3_vitb16", 85_660_416 - 768),
        ("dinov3_vitl16", 303_129_600 - 1024),
    ],
)
def test_parameter_counts(kind, count):
    """Those of transformers, which have a token, only used in training, that ours leave out."""
    params = jax.eval_shape(network(**KINDS[kind]).init, jax.random.key(0))
    assert num_parameters(params) == count


@pytest.mark.parametrize("swiglu", [False, True])
def test_shapes_and_bfloat16(swiglu):
    dino = network(**SMALL, swiglu=swiglu)
    params, x = random_params(dino), images(16, 24)
    tokens = quick(dino.apply)(params, x)
    assert [t.shape for t in tokens] == [(2, 32), (2, 3, 32), (2, 24, 32)]
    low = quick(network(**SMALL, swiglu=swiglu, dtype=jnp.bfloat16).apply)(params, x)
    assert low.patches.dtype == jnp.float32
    assert 1e-4 < relative_error(low.patches, tokens.patches) < 0.05


def test_errors_are_one_sentence():
    dino = network(**SMALL)
    with pytest.raises(ValueError, match="multiples of 4 pixels, not 15x16"):
        jax.eval_shape(dino.apply, random_params(dino), images(15, 16))
    with pytest.raises(ValueError, match="head dimension divisible by 4, got 6"):
        network(**SMALL | dict(width=12))


def test_rotation_of_patch_centres():
    """By hand for 2 x 1 patches: centres at -1/2, 1/2 and 0; class and registers stay."""
    cos, sin = axial_rotation((2, 1), (1.0, 4.0), 3)
    angles = np.array([np.pi, np.pi / 4, 0, 0])
    for table, function in ((cos, np.cos), (sin, np.sin)):
        assert table.shape == (5, 8)
        np.testing.assert_allclose(table[:3], function(np.zeros((3, 8))))
        np.testing.assert_allclose(table[3], function(np.tile(-angles, 2)), atol=1e-12)
        np.testing.assert_allclose(table[4], function(np.tile(angles, 2)), atol=1e-12)
    x = np.random.default_rng(0).standard_normal((1, 5, 1, 8)).astype(np.float32)
    pairs = x[..., :4] + 1j * x[..., 4:]
    expected = pairs[0, 4, 0] * np.exp(1j * angles)
    result = rotate_halves(x, (cos, sin))[0, :, 0]
    np.testing.assert_array_equal(result[:3], x[0, :3, 0])
    np.testing.assert_allclose(result[4], np.r_[expected.real, expected.imag], atol=1e-6)


def test_positions_matter_through_the_rotation_alone():
    """Embedded patches in another order: the class token moves by as much as RoPE makes of it."""
    dino = network(**SMALL | dict(depth=1))
    params = random_params(dino)
    patches = np.random.default_rng(0).standard_normal((1, 2, 3, 32)).astype(np.float32)
    turned = quick(lambda p, x: dino.bind(p).encode(x).cls)

    def unturned(p, x):
        module = dino.bind(p)
        module._rotation = lambda grid: None
        return module.encode(x).cls

    for encode, differs in ((turned, True), (quick(unturned), False)):
        error = relative_error(encode(params, patches), encode(params, patches[:, :, ::-1]))
        assert error > 1e-3 if differs else error < 1e-5


@pytest.mark.parametrize("swiglu", [False, True])
def test_export_inverts_convert(swiglu):
    dino = network(**SMALL, swiglu=swiglu)
    params = random_params(dino)
    for layout in layouts(dino):
        again = convert(export(params, layout), layouts(dino), dino)
        jax.tree.map(np.testing.assert_array_equal, again, params)


def test_the_bias_of_keys_is_left_out_and_published_periods_need_their_dtype():
    plain, rounded = network(**SMALL), network(**SMALL, rope_dtype=jnp.bfloat16)
    params = random_params(rounded)
    tensors = export(params, layouts(rounded)[0])
    bias = tensors["blocks.1.attn.qkv.bias"]
    assert not bias[32:64].any()
    np.testing.assert_array_equal(
        np.r_[bias[:32], bias[64:]], params["blocks"]["layers"]["attention"]["qv_bias"][1]
    )
    tensors["blocks.0.attn.qkv.bias_mask"] = np.zeros(96, np.float32)  # as in the files published
    tensors["mask_token"] = np.zeros((1, 32), np.float32)
    jax.tree.map(np.testing.assert_array_equal, convert(tensors, layouts(rounded), rounded), params)
    with pytest.raises(ValueError, match=r"computed here \(rope_embed.periods\)"):
        convert(tensors, layouts(plain), plain)


def test_published_periods():
    """Those in Meta's files, for heads of 64 channels."""
    published = [1.0, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5]
    published += [10.0, 13.3125, 17.75, 23.75, 31.625, 42.25, 56.25, 75.0]
    dino = network(**KINDS["dinov3_vits16"], rope_dtype=jnp.bfloat16)
    np.testing.assert_array_equal(dino.module.periods(), published)


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


CASES = [
    ("dinov3_vits16", 2, (224, 224)),
    ("dinov3_vits16plus", 2, (48, 112)),
    ("dinov3_vitb16", 2, (48, 112)),
    ("dinov3_vitl16", 1, (64, 32)),
    pytest.param("dinov3_vits16", 12, (224, 224), marks=pytest.mark.slow),
]


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "depth", "size"), CASES)
def test_parity_with_meta(kind, depth, size):
    pytest.importorskip("torch")
    from originals_dino import TorchDINOv3, randomise
    from torch_originals import published

    options = KINDS[kind] | dict(depth=depth)
    model, x = randomise(TorchDINOv3(**options)), images(*size, batch=1)
    states, output = model.states(torch_images(x)), model(torch_images(x))
    compare(network(**options, rope_dtype=jnp.bfloat16), published(model), x, states, output)


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "depth", "size"), CASES)
def test_parity_with_transformers(kind, depth, size, tmp_path):
    torch = pytest.importorskip("torch")
    from originals_dino import randomise
    from safetensors.numpy import load_file
    from torchvision_shim import importorskip

    transformers = importorskip("transformers")
    sizes = KINDS[kind]
    config = transformers.DINOv3ViTConfig(
        hidden_size=sizes["width"],
        intermediate_size=4 * sizes["width"],
        num_hidden_layers=depth,
        num_attention_heads=sizes["heads"],
        num_register_tokens=4,
        use_gated_mlp=sizes.get("swiglu", False),
        hidden_act="silu" if "swiglu" in sizes else "gelu",
    )
    model = randomise(transformers.DINOv3ViTModel(config))
    model.save_pretrained(tmp_path)  # by the published names
    x = images(*size, batch=1)
    with torch.no_grad():
        output = model(torch_images(x), output_hidden_states=True)
    tensors = load_file(tmp_path / "model.safetensors")
    dino = network(**sizes | dict(depth=depth))
    compare(dino, tensors, x, output.hidden_states[1 : depth + 1], output.last_hidden_state)
