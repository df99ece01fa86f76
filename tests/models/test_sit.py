"""SiT: parameter counts (docs/systems/shared.md#parameter-counts), initialisation, parity with
PyTorch, invariances."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.sit import SIZES, SiT
from sphere_jax.nn.functional import Network, num_parameters

TINY = dict(latent_shape=(8, 8, 4), patch=2, width=32, depth=3, heads=4, num_classes=10)


def network(**options):
    return Network(lambda rngs: SiT(**(TINY | options), rngs=rngs))


@pytest.fixture(scope="module")
def params():
    """Initial parameters with noise on every leaf: at initialisation the output is zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32),
        jax.jit(network().init)(jax.random.key(0)),
    )


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((3, 8, 8, 4)).astype(np.float32)
    return z, np.array([0.0, 0.37, 1.0], np.float32), np.array([0, 7, 10], np.int32)


@pytest.mark.parametrize(
    ("size", "channels", "patch", "count"),
    [
        ("S", 4, 2, 32_957_200),
        ("B", 4, 2, 130_500_112),
        ("L", 4, 2, 458_086_416),
        ("XL", 4, 2, 675_111_184),
        ("B", 16, 2, 130_573_888),
        ("B", 32, 2, 130_672_256),
        ("B", 32, 1, 130_524_704),
        ("B", 128, 1, 130_672_256),
        ("XL", 16, 2, 675_221_824),
        ("XL", 32, 2, 675_369_344),
        ("XL", 32, 1, 675_148_064),
        ("XL", 128, 1, 675_369_344),
    ],
)
def test_parameter_counts(size, channels, patch, count):
    depth, width, heads = SIZES[size]
    shape = (16 * patch, 16 * patch, channels)
    sit = Network(lambda rngs: SiT(shape, patch, width, depth, heads, 1000, rngs=rngs))
    parameters = num_parameters(jax.eval_shape(sit.init, jax.random.key(0)))
    assert parameters + sit.module.fixed_table_size == count


def test_initialisation(inputs):
    initial = jax.jit(network(width=256, depth=1).init)(jax.random.key(0))
    layers = initial["blocks"]["layers"]
    for zero in (layers["modulation"], initial["head"]["modulation"], initial["head"]["output"]):
        assert not np.any(zero["kernel"]) and not np.any(zero["bias"])
    for normal in (initial["label"]["table"], initial["time"]["hidden"]["kernel"]):
        np.testing.assert_allclose(np.std(normal), 0.02, rtol=0.05)
    kernel = np.asarray(layers["attention"]["qkv"]["kernel"])
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (256 + 768)), rtol=0.02)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(initial))


@pytest.mark.parity
def test_parity_with_pytorch(params, inputs):
    torch = pytest.importorskip("torch")
    path = Path(__file__).parents[2] / "benchmarks" / "torch_sit.py"
    spec = importlib.util.spec_from_file_location("torch_sit", path)
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    model = oracle.load(oracle.TorchSiT(*TINY.values()), params)
    z, t, labels = (torch.from_numpy(x) for x in inputs)
    expected = model(z, t, labels.long())
    result = jax.jit(network().apply)(params, *inputs)
    assert relative_error(result, expected.detach().numpy()) <= 1e-4  # 2e-7 measured

    weight = np.random.default_rng(2).standard_normal(result.shape).astype(np.float32)
    (expected * torch.from_numpy(weight)).sum().backward()
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(network().apply(p, *inputs) * weight)))(params)
    layers = gradient["blocks"]["layers"]
    for ours, theirs in [
        (layers["attention"]["qkv"], [block.qkv for block in model.blocks]),
        (layers["mlp"]["expand"], [block.expand for block in model.blocks]),
        (layers["modulation"], [block.modulation for block in model.blocks]),
    ]:
        kernels = np.stack([layer.weight.grad.numpy().T for layer in theirs])
        assert relative_error(ours["kernel"], kernels) <= 1e-4
        assert relative_error(ours["bias"], np.stack([x.bias.grad.numpy() for x in theirs])) <= 1e-4
    assert relative_error(gradient["label"]["table"], model.label.weight.grad.numpy()) <= 1e-4


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("remat", ["none", "products", "blocks"])
def test_unroll_and_remat_reach_the_stack(params, inputs, unroll, remat):
    """That they change no number is tested on the stack itself, tests/nn."""
    net = network(unroll=unroll, remat=remat)
    jaxpr = jax.make_jaxpr(net.apply)(params, *inputs)
    (scan,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    assert scan.params["unroll"] == unroll and scan.params["length"] == 3
    inner = {equation.primitive.name for equation in scan.params["jaxpr"].jaxpr.eqns}
    assert ("checkpoint" in inner or "remat2" in inner or "remat" in inner) == (remat != "none")


def test_bfloat16_compute_gives_float32_near_the_float32_output(params, inputs):
    expected = jax.jit(network().apply)(params, *inputs)
    result = jax.jit(network(compute_dtype=jnp.bfloat16).apply)(params, *inputs)
    assert result.dtype == jnp.float32
    assert 1e-5 < relative_error(result, np.asarray(expected)) < 0.03


def test_every_input_matters_and_images_do_not_mix(params, inputs):
    apply = jax.jit(network().apply)
    z, t, labels = inputs
    base = np.asarray(apply(params, z, t, labels))
    assert base.shape == z.shape
    for changed in ((z + 0.1, t, labels), (z, t * 0.5 + 0.1, labels), (z, t, labels[::-1].copy())):
        difference = np.abs(np.asarray(apply(params, *changed)) - base).max((1, 2, 3))
        assert difference[0] > 1e-3 and difference[2] > 1e-3
    z = z.copy()
    z[2] += 1
    np.testing.assert_allclose(np.asarray(apply(params, z, t, labels))[:2], base[:2], atol=1e-5)


def test_without_classes_labels_are_ignored(inputs):
    net = network(num_classes=0)
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert "label" not in params
    with_labels = jax.make_jaxpr(net.apply)(params, *inputs)
    without = jax.make_jaxpr(lambda p, z, t: net.apply(p, z, t, None))(params, *inputs[:2])
    assert len(with_labels.eqns) == len(without.eqns)
    used = {v for e in with_labels.eqns for v in e.invars if not hasattr(v, "val")}
    assert with_labels.jaxpr.invars[-1] not in used  # the labels


def test_patch_must_divide_the_grid():
    with pytest.raises(ValueError, match="patch 3 does not divide"):
        network(patch=3)
