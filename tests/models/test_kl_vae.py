"""AutoencoderKL: published sizes, shapes, bfloat16, parity with diffusers and LDM's layout."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sphere_jax.models.kl_vae import KINDS, AutoencoderKL, GroupNorm
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.kl_vae import layouts
from sphere_jax.weights.tensors import convert

SMALL = dict(latent_channels=3, widths=(32, 32), blocks=1)


def network(sizes, **options):
    return Network(lambda rngs: AutoencoderKL(**sizes, rngs=rngs, **options))


@functools.cache
def published_size(kind):
    return network(KINDS[kind])


def shapes(vae):
    """Of its parameters."""
    return nnx.to_pure_dict(nnx.state(vae.module))


def random_params(vae):
    """Products of about the size of their input, norms that are not the identity."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        slope = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.3
        offset = 1.0 if path[-1].key == "scale" else 0.0
        return rng.normal(offset, slope, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(vae))


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def quick(function):
    """Compiled in little time, not to little time."""
    return jax.jit(function, compiler_options=run_once_options())


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 16, 12, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("sd", 83_653_863),
        ("flux1", 83_819_683),
        ("flux2", 84_046_115 + 256),  # of which the statistics of latents are 256
        ("vavae", 69_836_067),
    ],
)
def test_parameter_counts(kind, count):
    """As the originals have them."""
    params = shapes(published_size(kind))
    assert num_parameters(params) == count
    assert set(params) == {"encoder", "decoder"} | ({"statistics"} if kind == "flux2" else set())
    assert ("quant" in params["encoder"]) == ("quant" in params["decoder"]) == (kind != "flux1")


def test_shapes():
    vae = published_size("vavae")
    params = shapes(vae)
    x = jax.ShapeDtypeStruct((2, 64, 50, 3), jnp.float32)  # 50 leaves a remainder
    maps = jax.eval_shape(lambda p, x: vae.bind(p).encoder.features(x), params, x)
    assert {name: found.shape for name, found in maps.items()} == {
        "stem": (2, 64, 50, 128),
        "level0": (2, 32, 25, 128),
        "level1": (2, 16, 12, 128),
        "level2": (2, 8, 6, 256),
        "level3": (2, 4, 3, 256),
        "level4": (2, 4, 3, 512),
        "middle": (2, 4, 3, 512),
        "moments": (2, 4, 3, 64),
    }
    z = jax.ShapeDtypeStruct((2, 4, 3, 32), jnp.float32)
    maps = jax.eval_shape(lambda p, z: vae.bind(p).decoder.features(z), params, z)
    assert {name: found.shape for name, found in maps.items()} == {
        "stem": (2, 4, 3, 512),
        "middle": (2, 4, 3, 512),
        "level0": (2, 8, 6, 512),
        "level1": (2, 16, 12, 256),
        "level2": (2, 32, 24, 256),
        "level3": (2, 64, 48, 128),
        "level4": (2, 64, 48, 128),
        "images": (2, 64, 48, 3),
    }


@pytest.mark.parametrize(
    ("mean", "std"), [(1000.0, 1.0), (0.0, 1e-3)], ids=["far from zero", "as small as epsilon"]
)
def test_group_norm(mean, std):
    """Channels of one group have means of their own."""
    rng = np.random.default_rng(0)
    x = rng.normal(mean, std, (2, 5, 4, 64)) + std * np.arange(64)
    x, groups = np.float32(x), np.float64(np.float32(x)).reshape(2, 20, 32, 2)
    scale, bias = rng.normal(1.0, 0.3, (2, 64)).astype(np.float32)
    centred = groups - groups.mean((1, 3), keepdims=True)
    var = np.square(centred).mean((1, 3), keepdims=True)
    expected = (centred / np.sqrt(var + 1e-6)).reshape(x.shape) * scale + bias
    norm, params = Network(lambda rngs: GroupNorm(64)), {"scale": scale, "bias": bias}
    assert relative_error(norm.apply(params, x), expected) < 1e-4
    assert norm.apply(params, jnp.bfloat16(x)).dtype == jnp.bfloat16


def test_group_norm_needs_32_groups():
    with pytest.raises(ValueError, match="width 48 is not divisible by 32 groups"):
        GroupNorm(48)


def test_images_do_not_mix_and_every_pixel_counts(images):
    vae = network(SMALL)
    params = random_params(vae)
    slope = quick(jax.value_and_grad(lambda x: jnp.sum(vae.apply(params, x)[0] ** 2)))
    value, gradient = slope(images)
    assert np.all(np.abs(gradient[0]).max(axis=-1) > 0) and not np.any(gradient[1])
    np.testing.assert_allclose(slope(np.stack([images[0], images[1] / 2]))[0], value, rtol=1e-5)


def test_bfloat16_products_give_float32_near_the_float32_images(images):
    plain, bfloat16 = network(SMALL), network(SMALL, dtype=jnp.bfloat16)
    params = random_params(plain)
    expected = np.asarray(quick(plain.apply)(params, images))
    result = quick(bfloat16.apply)(params, images)
    assert result.dtype == jnp.float32 and result.shape == images.shape
    assert 1e-4 < relative_error(result, expected) < 0.05
    maps = jax.eval_shape(lambda p, x: bfloat16.bind(p).encoder.features(x), params, images)
    assert maps["middle"].dtype == jnp.bfloat16 and maps["moments"].dtype == jnp.float32


def diffusers_original(kind):
    """Random weights in diffusers' class for the kind, and its published settings."""
    torch = pytest.importorskip("torch")
    from torchvision_shim import import_torchvision

    with contextlib.suppress(ImportError):  # diffusers does without it, but not with half of it
        import_torchvision()
    diffusers = pytest.importorskip("diffusers")
    from originals_ldm import randomize

    torch.manual_seed(0)
    if kind == "flux2":
        model = diffusers.AutoencoderKLFlux2()
    else:
        levels = len(KINDS[kind]["widths"])
        attention = [k in KINDS[kind].get("attention_levels", ()) for k in range(levels)]
        model = diffusers.AutoencoderKL(
            down_block_types=[
                "AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention
            ],
            up_block_types=[
                "AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in attention[::-1]
            ],
            block_out_channels=KINDS[kind]["widths"],
            layers_per_block=2,
            latent_channels=KINDS[kind]["latent_channels"],
            use_quant_conv=KINDS[kind].get("quant", True),
            use_post_quant_conv=KINDS[kind].get("quant", True),
        )
    randomize(model)
    return model.eval()


def ldm_original(kind):
    torch = pytest.importorskip("torch")
    import originals_ldm

    torch.manual_seed(0)
    return originals_ldm.AutoencoderKL(**KINDS[kind])


def named(half):
    """The parts of the original whose outputs are our features."""
    if hasattr(half, "mid_block"):
        middle, levels = half.mid_block, getattr(half, "down_blocks", None) or half.up_blocks
    else:
        middle, levels = half.mid, getattr(half, "down", None) or reversed(half.up)
    parts = {"stem": half.conv_in, "middle": middle}
    return parts | {f"level{k}": level for k, level in enumerate(levels)}


def outputs(half, call):
    """Of those parts while `call` runs, NHWC."""
    from torch_originals import nhwc

    maps, handles = {}, []
    for name, part in named(half).items():

        def keep(module, inputs, output, name=name):
            maps[name] = nhwc(output)

        handles.append(part.register_forward_hook(keep))
    result = call()
    for handle in handles:
        handle.remove()
    return maps, nhwc(result)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("original", "kind", "size"),
    [
        (diffusers_original, "sd", (48, 67)),
        (diffusers_original, "flux1", (64, 64)),
        (diffusers_original, "flux2", (32, 64)),
        (diffusers_original, "vavae", (64, 48)),
        (ldm_original, "vavae", (48, 64)),
        (ldm_original, "flux2", (32, 32)),
        (ldm_original, "flux1", (32, 32)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_parity_with_pytorch(original, kind, size):
    """Real width and depth. Largest relative error of outputs and features: 1.1e-5 (VA-VAE's),
    5e-6 of the other kinds."""
    model, vae = original(kind), published_size(kind)
    import torch
    from torch_originals import nchw, published

    params = convert(published(model), layouts(vae), vae)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    grid = [side // 2 ** (len(KINDS[kind]["widths"]) - 1) for side in size]
    z = rng.standard_normal((1, *grid, KINDS[kind]["latent_channels"])).astype(np.float32)

    def encode():
        moments = model.encode(nchw(x))
        return moments if torch.is_tensor(moments) else moments.latent_dist.parameters

    def decode():
        images = model.decode(nchw(z))
        return images if torch.is_tensor(images) else images.sample

    worst = {}
    with torch.no_grad():
        for half, last, value, call in (
            ("encoder", "moments", x, encode),
            ("decoder", "images", z, decode),
        ):
            maps, result = outputs(getattr(model, half), call)
            features = jax.jit(lambda p, v, half=half: getattr(vae.bind(p), half).features(v))
            ours = features(params, value)
            assert set(ours) == {*maps, last}
            for name, expected in {**maps, last: result}.items():
                worst[f"{half} {name}"] = relative_error(ours[name], expected)
    assert max(worst.values()) <= 1e-4, worst
