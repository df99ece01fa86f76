"""DC-AE, HAE's decoder and stem: published sizes, shapes, layouts, parity with PyTorch."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sphere_jax.models.dc_ae import DECODERS, ENCODERS, AutoencoderDC, Decoder, Encoder
from sphere_jax.models.hae import ConvStem
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.dc_ae import layouts, stem_layouts
from sphere_jax.weights.tensors import convert, export

# Quick to compile. The first as Sana's; the second as DC-AE's, with no finest blocks, and shuffles.
NARROW = dict(
    latent_channels=8,
    widths=(8, 32),
    depths=(1, 2),
    blocks=("res", "evit5"),
    norms=("trms2d", "trms2d"),
    activations=("silu", "silu"),
)
SHUFFLING = dict(
    latent_channels=8,
    widths=(8, 16, 32),
    depths=(0, 2, 1),
    blocks=("res", "res", "evit"),
    norms=("trms2d", "trms2d", "trms2d"),
    activations=("silu", "relu", "silu"),
)
HAE_COUNTS = (172_004_099, 172_016_387, 172_034_307)
PAIRS = {
    "convs": (NARROW | dict(resample="conv"), NARROW | dict(resample="interpolate")),
    "shuffles": (
        SHUFFLING | dict(resample="pixel_unshuffle", activations=("silu",) * 3),
        SHUFFLING | dict(resample="pixel_shuffle", norms=("batch", "batch", "trms2d")),
    ),
}


def network(module, sizes):
    return Network(lambda rngs: module(**sizes, rngs=rngs))


def shallow(sizes):
    """With one block a level at most."""
    return sizes | dict(depths=tuple(min(depth, 1) for depth in sizes["depths"]))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def shapes_of(net):
    return nnx.to_pure_dict(nnx.state(net.module))


def random_params(net):
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.uniform(-0.1, 0.2, leaf.shape).astype(np.float32)
        return np.abs(values) if path[-1].key == "variance" else values

    return jax.tree_util.tree_map_with_path(draw, shapes_of(net))


@pytest.mark.parametrize(
    ("module", "kinds", "counts"),
    [
        (Encoder, ENCODERS, (123_172_384, 264_550_528, 415_661_056, 153_027_104)),
        (Decoder, DECODERS, (200_196_876, 412_358_412, 705_033_996, 159_223_171, *HAE_COUNTS)),
    ],
    ids=["encoders", "decoders"],
)
def test_parameter_counts(module, kinds, counts):
    """Of f32c32, f64c128, f128c512 and Sana's f32c32 as diffusers builds them, with running means
    and variances; of HAE's decoder as in docs/systems/shared.md#parameter-counts, and that with
    TRMS2d."""
    for (kind, sizes), count in zip(kinds.items(), counts, strict=True):
        assert num_parameters(shapes_of(network(module, sizes))) == count, kind


def test_stem_count_shapes_and_initialisation():
    stem = network(ConvStem, dict(norm="sample_rms"))
    shapes = shapes_of(stem)
    assert num_parameters(shapes) == 2_737_792
    tokens = jax.eval_shape(stem.apply, shapes, np.zeros((2, 256, 200, 3), np.float32))
    assert tokens.shape == (2, 16, 13, 1024)
    small = network(ConvStem, dict(widths=(64, 8, 8, 8), norm="sample_rms"))
    kernel = jax.jit(small.init)(jax.random.key(0))["convs"][0]["kernel"]
    bound = (7 * 7 * 3) ** -0.5
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(np.std(kernel), bound / 3**0.5, rtol=0.02)


def test_shapes_of_features():
    def maps(net, x):
        features = jax.eval_shape(lambda p, x: net.bind(p).features(x), shapes_of(net), x)
        assert all(leaf.dtype == jnp.float32 for leaf in features.values())
        return {name: leaf.shape[1:] for name, leaf in features.items()}

    latents = np.zeros((1, 16, 12, 1024), np.float32)
    assert maps(network(Decoder, DECODERS["hae_released"]), latents) == {
        "project_in": (16, 12, 1024),
        "stage_1": (16, 12, 1024),
        "stage_2": (32, 24, 1024),
        "stage_3": (64, 48, 512),
        "stage_4": (128, 96, 512),
        "stage_5": (256, 192, 256),
        "images": (256, 192, 3),
    }
    images = np.zeros((1, 256, 192, 3), np.float32)
    assert maps(network(Encoder, ENCODERS["f64c128"]), images) == {
        "project_in": (128, 96, 256),
        "stage_1": (64, 48, 512),
        "stage_2": (32, 24, 512),
        "stage_3": (16, 12, 1024),
        "stage_4": (8, 6, 1024),
        "stage_5": (4, 3, 2048),
        "stage_6": (4, 3, 2048),
        "latents": (4, 3, 128),
    }


def test_only_the_finest_level_can_be_empty():
    with pytest.raises(ValueError, match="only the finest level can be of depth 0"):
        network(Decoder, PAIRS["convs"][1] | dict(depths=(1, 0)))


@pytest.mark.parametrize("kind", PAIRS)
def test_bfloat16_is_near_float32_and_out_comes_float32(kind):
    plain = network(Decoder, PAIRS[kind][1])
    half = network(Decoder, PAIRS[kind][1] | dict(dtype=jnp.bfloat16))
    params, z = random_params(plain), normal(2, 3, 4, 8)
    expected = np.asarray(jax.jit(plain.apply)(params, z))
    result = jax.jit(half.apply)(params, z)
    assert result.dtype == jnp.float32 and relative_error(result, expected) < 0.05


def test_samples_do_not_mix_and_every_latent_counts():
    """Nor with one RMS a sample, as in HAE's code."""
    sizes = PAIRS["convs"][1] | dict(norms=("sample_rms",) * 2, blocks=("res", "evit"))
    decoder = network(Decoder, sizes)
    params, z = random_params(decoder), normal(2, 3, 4, 8)
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(decoder.apply(params, z)[0] ** 2)))(z)
    assert np.all(np.abs(gradient[0]).max(axis=-1) > 0) and not np.any(gradient[1])


@pytest.mark.parametrize("module", [Encoder, Decoder])
def test_remat_and_unroll_reach_every_level(module):
    sizes = PAIRS["convs"][module is Decoder] | dict(remat="blocks", unroll=2)
    for level in network(module, sizes).module.levels:
        assert level.blocks.remat == "blocks" and level.blocks.unroll == 2


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("module", [Encoder, Decoder])
def test_every_layout_there_and_back(module, kind):
    net = network(module, PAIRS[kind][module is Decoder])
    params = random_params(net)
    for layout in layouts(net):
        tensors = export(params, layout)
        other_half = {("decoder" if module is Encoder else "encoder") + ".x": np.zeros(1)}
        back = convert(tensors | other_half, layouts(net), net)
        assert jax.tree.all(jax.tree.map(np.array_equal, back, params)), layout.name
    with pytest.raises(ValueError, match="1 missing"):
        convert(dict(list(tensors.items())[1:]), layouts(net), net)


def test_the_whole_autoencoder_is_its_halves():
    net = Network(lambda rngs: AutoencoderDC("f32c32_sana", rngs=rngs))
    halves = {
        half: network(module, kinds["f32c32_sana"])
        for half, module, kinds in (("encoder", Encoder, ENCODERS), ("decoder", Decoder, DECODERS))
    }
    for k, whole in enumerate(layouts(net)):
        of_halves = {half: layouts(part)[k] for half, part in halves.items()}
        assert whole.leaves == {
            f"{half}/{path}": source
            for half, layout in of_halves.items()
            for path, source in layout.leaves.items()
        }
        assert {layout.name for layout in of_halves.values()} == {whole.name}
    features = jax.eval_shape(net.apply, shapes_of(net), np.zeros((1, 64, 96, 3), np.float32))
    assert features.shape == (1, 64, 96, 3)


def test_names_of_hae():
    """As its published module has them: the coarsest level first, norms of four axes."""
    decoder = network(Decoder, DECODERS["hae_released"])
    stem = network(ConvStem, dict(norm="sample_rms"))
    (hae,) = (layout for layout in layouts(decoder) if layout.name == "HAE")
    (of_stem,) = stem_layouts(stem)
    assert hae.leaves["levels/4/upsample/conv/bias"].names == (
        "decoder.stages.4.op_list.0.main.conv.conv.bias"
    )
    assert hae.leaves["levels/0/blocks/layers/glu/expand/kernel"].names == [
        f"decoder.stages.0.op_list.{n}.local_module.main.inverted_conv.conv.weight"
        for n in range(3)
    ]
    assert hae.leaves["out_norm/scale"].names == "decoder.project_out.op_list.0.weight"
    assert of_stem.leaves["norms/2/scale"].names == "dino_model.patch_embed.cnn.2.norm.weight"
    tensors = export(random_params(stem), of_stem)
    assert tensors["dino_model.patch_embed.cnn.2.norm.weight"].shape == (1, 256, 1, 1)


def nhwc(tensor):
    return tensor.detach().movedim(1, -1).numpy()


def nchw(array):
    import torch

    return torch.from_numpy(array).movedim(-1, 1).contiguous()


def worst_error(net, params, x, expected):
    """The largest relative error of all features."""
    maps = jax.jit(lambda p, x: net.bind(p).features(x))(params, x)
    assert maps.keys() == expected.keys()
    return max(relative_error(maps[name], nhwc(expected[name])) for name in maps)


def diffusers_original(encoder, decoder):
    """diffusers' AutoencoderDC of these sizes with random weights and norms."""
    torch = pytest.importorskip("torch")
    from torchvision_shim import import_torchvision

    with contextlib.suppress(ImportError):  # diffusers does without
        import_torchvision()
    diffusers = pytest.importorskip("diffusers")
    norms = {"trms2d": "rms_norm", "batch": "batch_norm"}
    options = {}
    for name, sizes in (("encoder", encoder), ("decoder", decoder)):
        blocks = sizes["blocks"]
        options |= {
            f"{name}_block_types": tuple(
                "ResBlock" if block == "res" else "EfficientViTBlock" for block in blocks
            ),
            f"{name}_qkv_multiscales": tuple((5,) if b == "evit5" else () for b in blocks),
            f"{name}_block_out_channels": sizes["widths"],
            f"{name}_layers_per_block": sizes["depths"],
        }
    torch.manual_seed(0)
    original = diffusers.AutoencoderDC(
        latent_channels=encoder["latent_channels"],
        downsample_block_type=encoder["resample"],
        upsample_block_type=decoder["resample"],
        decoder_norm_types=tuple(norms[norm] for norm in decoder["norms"]),
        decoder_act_fns=decoder["activations"],
        **options,
    ).eval()
    for name, tensor in original.state_dict().items():
        if "norm" in name and tensor.ndim:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return original


def diffusers_features(part, x):
    """Input and output of the stages of diffusers' encoder or decoder, by our names."""
    import torch

    maps = []
    hooks = [
        stage.register_forward_hook(lambda _, args, output: maps.extend([args[0], output]))
        for stage in getattr(part, "down_blocks", None) or part.up_blocks
        if len(stage)
    ]
    with torch.no_grad():
        output = part(nchw(x))
    for hook in hooks:
        hook.remove()
    stages = {f"stage_{n}": stage for n, stage in enumerate(maps[1::2], 1)}
    last = "latents" if hasattr(part, "down_blocks") else "images"
    return {"project_in": maps[0], **stages, last: output}


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["f32c32", "f32c32_sana"])
def test_parity_with_diffusers(kind):
    """Real widths, one block a level, 64x96 images. Measured over all features: 3e-6."""
    encoder, decoder = shallow(ENCODERS[kind]), shallow(DECODERS[kind])
    original = diffusers_original(encoder, decoder)
    tensors = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    x, z = normal(1, 64, 96, 3), normal(1, 2, 3, 32)
    for module, sizes, part, given in (
        (Encoder, encoder, original.encoder, x),
        (Decoder, decoder, original.decoder, z),
    ):
        ours = network(module, sizes)
        params = convert(tensors, layouts(ours), ours)
        error = worst_error(ours, params, given, diffusers_features(part, given))
        assert error <= 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("kind", PAIRS)
def test_the_layout_of_efficientvit_matches_diffusers(kind):
    """Our export by its names, through diffusers' own conversion, is our export by diffusers'."""
    torch = pytest.importorskip("torch")
    diffusers_original(*PAIRS[kind])
    from diffusers.loaders.single_file_utils import convert_autoencoder_dc_checkpoint_to_diffusers

    theirs, expected = {}, {}
    for module, sizes in zip((Encoder, Decoder), PAIRS[kind], strict=True):
        net = network(module, sizes)
        params = random_params(net)
        by_name = {layout.name: export(params, layout) for layout in layouts(net)}
        theirs |= {n: torch.from_numpy(x) for n, x in by_name["efficientvit"].items()}
        expected |= by_name["diffusers"]
    converted = convert_autoencoder_dc_checkpoint_to_diffusers(theirs)
    assert converted.keys() == expected.keys()
    assert all(np.array_equal(converted[name], expected[name]) for name in expected)


def hae_original(depths, normed):
    torch = pytest.importorskip("torch")
    from originals_dc_ae import TorchHAE

    torch.manual_seed(0)
    return TorchHAE((1024, 1024, 512, 512, 256), depths, normed)


def hae_error(original, sizes, z):
    decoder = network(Decoder, sizes)
    tensors = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    params = convert(tensors, layouts(decoder), decoder)
    return worst_error(decoder, params, z, original.decode(nchw(z)))


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["hae_released", "hae_normed"])
def test_parity_with_hae(kind):
    """Real widths, one block a level, a 3x4 latent. Measured over all features: 2e-6."""
    original = hae_original((1,) * 5, normed=kind == "hae_normed")
    error = hae_error(original, shallow(DECODERS[kind]), normal(1, 3, 4, 1024))
    assert error <= 1e-4


@pytest.mark.parity
@pytest.mark.slow
def test_parity_with_the_whole_decoder_of_hae():
    """All 172 million parameters, an 8x8 latent. Measured over all features: 2e-6."""
    original = hae_original((3, 3, 3, 5, 5), normed=False)
    error = hae_error(original, DECODERS["hae_released"], normal(1, 8, 8, 1024))
    assert error <= 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("size", [(64, 48), (50, 35)])
def test_parity_with_the_stem_of_hae(size):
    """Even and odd sides. Measured over all features: 2e-6."""
    original = hae_original((1,) * 5, normed=False)
    stem = network(ConvStem, dict(norm="sample_rms"))
    tensors = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    params, x = convert(tensors, stem_layouts(stem), stem), normal(2, *size, 3)
    error = worst_error(stem, params, x, original.stem(nchw(x)))
    assert error <= 1e-4
