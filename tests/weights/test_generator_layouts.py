"""Published generators: names, sizes, both directions, and parity with PyTorch originals."""

import functools

import jax
import numpy as np
import pytest

from sphere_jax.models.lightning_ddt import SIZES as DDT_SIZES
from sphere_jax.models.lightning_ddt import LightningDDT
from sphere_jax.models.lightning_dit import SIZES as LIGHTNING_SIZES
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.parameterization import ADAPTERS
from sphere_jax.models.sit import SIZES as SIT_SIZES
from sphere_jax.models.sit import SiT
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.sampling import guided_velocity
from sphere_jax.weights.layouts.generators import layouts
from sphere_jax.weights.tensors import convert, export

TINY = {
    "sit": (SiT, (4, 4, 3), 2, 8, 2, 2, 5, dict(learn_sigma=True)),
    "lightning": (LightningDiT, (2, 2, 3), 1, 8, 2, 2, 5, dict(qk_norm=True)),
    "rae": (LightningDiT, (2, 2, 3), 1, 8, 2, 2, 5, dict(time_embedding="fourier")),
    "ddt": (LightningDDT, (2, 2, 3), 1, 8, 2, 2, 5, dict(head_width=16, head_heads=2)),
}
BLOCK = ["attn.qkv", "attn.proj", "adaLN_modulation.1"]
GELU, SWIGLU, QK = ["mlp.fc1", "mlp.fc2"], ["mlp.w12", "mlp.w3"], ["attn.q_norm", "attn.k_norm"]
OUTSIDE = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2"]
HEAD = ["final_layer.linear", "final_layer.adaLN_modulation.1"]


@functools.cache
def network(kind):
    return build(*TINY[kind])


def build(module, shape, patch, width, depth, heads, classes, options):
    return Network(
        lambda rngs: module(shape, patch, width, depth, heads, classes, rngs=rngs, **options)
    )


@functools.cache
def random_params(kind):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network(kind).init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.normal(0.1, 0.5, s.shape).astype(np.float32), shapes)


def quick(function):
    return jax.jit(function, compiler_options=run_once_options())


@pytest.mark.parametrize(
    ("kind", "in_block", "norms", "outside", "blocks"),
    [
        ("sit", BLOCK + GELU, [], [], 2),
        ("lightning", BLOCK + SWIGLU, ["norm1", "norm2", *QK], ["feat_rope"], 2),
        ("rae", BLOCK + SWIGLU, ["norm1", "norm2"], ["feat_rope"], 2),
        ("ddt", BLOCK + SWIGLU, ["norm1", "norm2"], ["enc_feat_rope", "dec_feat_rope"], 4),
    ],
)
def test_names_are_the_published_ones(kind, in_block, norms, outside, blocks):
    linears = OUTSIDE + HEAD + (["s_embedder.proj", "s_projector"] if kind == "ddt" else [])
    linears += [f"blocks.{n}.{name}" for n in range(blocks) for name in in_block]
    expected = {f"{name}.{part}" for name in linears for part in ("weight", "bias")}
    expected |= {f"blocks.{n}.{name}.weight" for n in range(blocks) for name in norms}
    expected |= {"pos_embed", "y_embedder.embedding_table.weight"}
    expected |= {"final_layer.norm_final.weight"} if norms else set()
    expected |= {"t_embedder.W"} if kind in ("rae", "ddt") else set()
    expected |= {f"{rope}.freqs_{f}" for rope in outside for f in ("cos", "sin")}
    (layout,) = layouts(network(kind))
    assert set(export(random_params(kind), layout)) == expected


@pytest.mark.parametrize("kind", TINY)
def test_round_trip_keeps_every_bit(kind):
    net = network(kind)
    params, (layout,) = random_params(kind), layouts(net)
    published = export(params, layout)
    again = convert(published, [layout], net)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    for name, tensor in export(again, layout).items():
        np.testing.assert_array_equal(tensor, published[name])


def test_places_of_tensors_in_a_layout():
    params = random_params("sit")
    tensors = export(params, layouts(network("sit"))[0])
    conv = tensors["x_embedder.proj.weight"]  # (width, d, p, p)
    assert conv.shape == (8, 3, 2, 2)
    np.testing.assert_array_equal(conv[5, 1, 0, 1], params["patches"]["kernel"][1 * 3 + 1, 5])
    qkv = tensors["blocks.1.attn.qkv.weight"]
    kernel = params["blocks"]["layers"]["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(qkv, kernel[1].T)

    params = random_params("ddt")
    tensors = export(params, layouts(network("ddt"))[0])
    assert tensors["s_embedder.proj.weight"].shape == (8, 3, 1, 1)
    assert tensors["x_embedder.proj.weight"].shape == (16, 3, 1, 1)
    for blocks, first in (("blocks", 0), ("head_blocks", 2)):
        kernel = params[blocks]["layers"]["mlp"]["contract"]["kernel"]
        for n in range(2):
            np.testing.assert_array_equal(tensors[f"blocks.{first + n}.mlp.w3.weight"], kernel[n].T)


def test_weights_of_another_network_are_refused():
    net = network("lightning")
    tensors = export(random_params("lightning"), layouts(net)[0])
    moved = tensors | {"pos_embed": tensors["pos_embed"][:, ::-1]}
    with pytest.raises(ValueError, match="1 with other values .*pos_embed.* of LightningDiT"):
        convert(moved, layouts(net), net)
    slower = tensors | {"feat_rope.freqs_cos": np.ones_like(tensors["feat_rope.freqs_cos"])}
    with pytest.raises(ValueError, match="other values .*feat_rope.freqs_cos"):
        convert(slower, layouts(net), net)
    with pytest.raises(ValueError, match="4 unexpected .*blocks.0.attn.k_norm.weight"):
        plain = build(*TINY["lightning"][:-1], {})
        convert(tensors, layouts(plain), plain)
    net = network("sit")
    tensors = export(random_params("sit"), layouts(net)[0])
    with pytest.raises(ValueError, match="2 misshapen .*final_layer.linear.bias"):
        plain = build(*TINY["sit"][:-1], {})
        convert(tensors, layouts(plain), plain)


@pytest.mark.parametrize(
    ("module", "size", "shape", "patch", "options", "count"),
    [
        (SiT, SIT_SIZES["S"], (32, 32, 4), 8, dict(learn_sigma=True), 33_148_160),
        (SiT, SIT_SIZES["XL"], (32, 32, 4), 2, dict(learn_sigma=True), 675_129_632),
        (LightningDiT, LIGHTNING_SIZES["XL"], (16, 16, 32), 1, {}, 675_256_736),
        (LightningDiT, LIGHTNING_SIZES["1p0B"], (16, 16, 32), 1, {}, 1_029_401_120),
    ],
)
def test_parameter_counts(module, size, shape, patch, options, count):
    """Of the PyTorch originals, tables of positions included."""
    depth, width, heads = size
    net = build(module, shape, patch, width, depth, heads, 1000, options)
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert num_parameters(params) + net.module.fixed_table_size == count


@pytest.mark.parametrize("kind", ["sit", "lightning"])
def test_features_are_those_of_the_call_and_sigma_is_dropped(kind):
    net = network(kind)
    params, (h, w, d) = random_params(kind), TINY[kind][1]
    z = np.random.default_rng(1).standard_normal((2, h, w, d)).astype(np.float32)
    inputs = z, np.float32([0.2, 0.7]), np.int32([1, 5])
    features = quick(lambda p, *x: net.bind(p).features(*x))(params, *inputs)
    assert sorted(features) == ["block_0", "block_1", "condition", "embed", "head"]
    assert features["head"].shape == (2, h, w, 2 * d if kind == "sit" else d)
    field = quick(net.apply)(params, *inputs)
    np.testing.assert_allclose(field, features["head"][..., :d], rtol=1e-5, atol=1e-5)
    last = quick(lambda p, x, c: net.bind(p).blocks(x, c))(
        params, features["embed"], features["condition"]
    )
    np.testing.assert_allclose(last, features["block_1"], rtol=1e-5, atol=1e-5)


# Published widths, depth cut.
CASES = {
    "SiT-B/2": (SiT, 8, 4, 2, 768, 2, 12, dict(learn_sigma=True)),
    "SiT-S/8": (SiT, 16, 4, 8, 384, 2, 6, dict(learn_sigma=True)),
    "DiT-XL/4": (SiT, 16, 4, 4, 1152, 2, 16, dict(learn_sigma=True)),
    "LightningDiT-B/1": (LightningDiT, 4, 32, 1, 768, 2, 12, {}),
    "LightningDiT-XL/1": (LightningDiT, 4, 32, 1, 1152, 2, 16, dict(qk_norm=True)),
    "RAE-B": (LightningDiT, 4, 768, 1, 768, 2, 12, dict(time_embedding="fourier")),
    "RAE-XL": (LightningDiT, 4, 768, 1, 1152, 1, 16, dict(time_embedding="fourier")),
    "DiT-DH-S": (LightningDDT, 4, 768, 1, 384, 2, 6, dict(head_depth=1)),
    "DiT-DH-XL": (LightningDDT, 4, 768, 1, 1152, 2, 16, dict(head_depth=2)),
    "DiT-DH one width": (
        LightningDDT,
        4,
        16,
        1,
        64,
        2,
        4,
        dict(head_width=64, head_heads=2, qk_norm=True),
    ),
}


def network_and_original(originals, module, side, d, patch, width, depth, heads, options):
    net = build(module, (side, side, d), patch, width, depth, heads, 1000, options)
    options = dict(options)
    if module is LightningDDT:
        head = options.pop("head_width", 2048), options.pop("head_depth", 2)
        both = zip((width, depth, heads), (*head, options.pop("head_heads", 16)), strict=True)
        return net, originals.DiTDH(side, d, *both, 1000, **options)
    if module is LightningDiT:
        fourier = options.pop("time_embedding", "sinusoid") == "fourier"
        options |= dict(lightning=True, fourier=fourier)
    return net, originals.Transformer(side, d, patch, width, depth, heads, 1000, **options)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def our_axes(tensor, name):
    return np.moveaxis(tensor.numpy(), 1, -1) if name == "head" else tensor.numpy()


def compare(name, net, original):
    """Output and every feature, on both sides from the weights of `original`."""
    import torch

    h, w = (side * net.module.patch for side in net.module.grid)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, h, w, net.module.channels)).astype(np.float32)
    t = np.float32([3, 999] if name.startswith("DiT-XL") else [0.13, 0.92])
    labels = np.int32([7, 1000])
    nchw = torch.from_numpy(z).movedim(-1, 1)
    field = original(nchw, torch.from_numpy(t), torch.from_numpy(labels).long())
    expected = {key: our_axes(value, key) for key, value in original.features.items()}
    field = our_axes(field, "head")
    published = {key: value.numpy() for key, value in original.state_dict().items()}
    layout = layouts(net)[0]
    params = convert(published, [layout], net)

    features = quick(lambda p, *x: net.bind(p).features(*x))(params, z, t, labels)
    assert set(features) == set(expected)
    errors = {key: relative_error(features[key], expected[key]) for key in expected}
    error = relative_error(quick(net.apply)(params, z, t, labels), field)
    print(f"{name}: output {error:.1e}, features {max(errors.values()):.1e}")
    assert error <= 1e-4
    assert max(errors.values()) <= 1e-4, errors
    return params, layout, published, (nchw, t, labels, field)


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_parity_with_pytorch(name):
    """Max relative error on CPU 1e-6 at the output, 2.3e-6 at a feature (DiT, of 1000 steps)."""
    torch = pytest.importorskip("torch")
    import originals_generators as originals

    torch.manual_seed(0)
    net, original = network_and_original(originals, *CASES[name])
    params, layout, published, (nchw, t, labels, field) = compare(name, net, original)

    exported = export(params, layout)
    assert set(exported) == set(published)
    for key, tensor in exported.items():
        assert tensor.shape == published[key].shape and tensor.dtype == published[key].dtype
        if "rope" in key:  # their angles are float32
            np.testing.assert_allclose(tensor, published[key], atol=2e-6)
        else:
            np.testing.assert_array_equal(tensor, published[key])
    exported = {key: torch.from_numpy(x.copy()) for key, x in exported.items()}
    for p in original.parameters():
        p.zero_()
    original.load_state_dict(exported, strict=True)
    again = original(nchw, torch.from_numpy(t), torch.from_numpy(labels).long())
    assert relative_error(our_axes(again, "head"), field) <= 1e-5


GUIDED = {  # the networks of CASES at width 64
    "SiT": ("data_at_one", 4.0, (SiT, 8, 4, 2, 64, 2, 4, dict(learn_sigma=True))),
    "DiT": ("noise_prediction", 4.0, (SiT, 8, 4, 2, 64, 2, 4, dict(learn_sigma=True))),
    "LightningDiT": ("data_at_one", 6.7, (LightningDiT, 4, 32, 1, 64, 2, 4, {})),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", GUIDED)
def test_guidance_of_three_channels_is_that_of_the_originals(name):
    torch = pytest.importorskip("torch")
    import originals_generators as originals

    torch.manual_seed(0)
    parameterization, scale, case = GUIDED[name]
    net, original = network_and_original(originals, *case)
    published = {key: value.numpy() for key, value in original.state_dict().items()}
    params = jax.tree.map(jax.numpy.asarray, convert(published, layouts(net), net))
    h, w = (side * net.module.patch for side in net.module.grid)
    z = np.random.default_rng(0).standard_normal((2, h, w, net.module.channels))
    z, t, labels = np.float32(z), np.float32([0.3, 0.8]), np.int32([7, 3])

    def theirs(z, t, _):
        """Guided already: as the adapters call a network."""
        twice = torch.from_numpy(np.concatenate([z, z])).movedim(-1, 1)
        both = torch.tensor([*labels.tolist(), 1000, 1000])
        times = torch.from_numpy(np.tile(np.asarray(t), 2))
        out = original.forward_with_cfg(twice, times, both, scale)
        return out[:2].movedim(1, -1).numpy()

    ours = ADAPTERS[parameterization](lambda *inputs: net.apply(params, *inputs))
    found = guided_velocity(ours, z, t, labels, 1000, scale, channels=3)
    expected = ADAPTERS[parameterization](theirs)(z, t, labels)
    assert relative_error(found, expected) <= 1e-5
    everywhere = guided_velocity(ours, z, t, labels, 1000, scale)
    assert relative_error(everywhere, expected) > 0.05


@pytest.mark.parity
@pytest.mark.slow
def test_parity_at_full_depth():
    """DiT-DH-XL, 839 million parameters."""
    torch = pytest.importorskip("torch")
    import originals_generators as originals

    torch.manual_seed(0)
    depth, width, heads = DDT_SIZES["XL"]
    case = (LightningDDT, 2, 768, 1, width, depth, heads, {})
    compare("DiT-DH-XL, all blocks", *network_and_original(originals, *case))


def published_sizes():
    for size, (depth, width, heads) in SIT_SIZES.items():
        for patch in (2, 4, 8):
            options = dict(learn_sigma=True)
            yield f"SiT-{size}/{patch}", (SiT, 32, 4, patch, width, depth, heads, options)
    for size, (depth, width, heads) in LIGHTNING_SIZES.items():
        yield f"LightningDiT-{size}/1", (LightningDiT, 16, 32, 1, width, depth, heads, {})
        options = dict(time_embedding="fourier")
        yield f"RAE-{size}", (LightningDiT, 16, 768, 1, width, depth, heads, options)
    for size, (depth, width, heads) in DDT_SIZES.items():
        yield f"DiT-DH-{size}", (LightningDDT, 16, 768, 1, width, depth, heads, {})


@pytest.mark.parity
def test_published_sizes():
    """Names, shapes and counts at full size, of both sides without memory."""
    torch = pytest.importorskip("torch")
    import originals_generators as originals

    for name, case in published_sizes():
        with torch.device("meta"):
            net, original = network_and_original(originals, *case)
        count = sum(p.numel() for p in original.parameters())
        params = jax.eval_shape(net.init, jax.random.key(0))
        assert num_parameters(params) + net.module.fixed_table_size == count, name
        (layout,) = layouts(net)
        shapes = {key: tuple(x.shape) for key, x in original.state_dict().items()}
        assert {key: shapes[key] for key in layout.constants} == {
            key: x.shape for key, x in layout.constants.items()
        }
        names = {n for s in layout.leaves.values() for n in flat_names(s.names)}
        assert names | set(layout.constants) == set(shapes), name


def flat_names(names):
    return [names] if isinstance(names, str) else names
