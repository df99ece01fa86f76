"""LPIPS: sizes of its trunks, properties of the distance, the published weights, PyTorch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sphere_jax.models.alexnet import AlexNet
from sphere_jax.models.lpips import LPIPS, unit
from sphere_jax.models.vgg import VGG16, convolve, max_pool
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts import lpips as weights
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.tensors import convert

SHARED = Path(__file__).parents[3] / "shared" / "data"
NARROW = (4, 6, 8, 8, 8)
WIDTHS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
FILES = {"vgg": "lpips_vgg16.safetensors", "alex": "lpips_alexnet.safetensors"}


def network(net="vgg", widths=NARROW, **options):
    return Network(lambda rngs: LPIPS(net, rngs=rngs, widths=widths, **options))


def random_params(lpips):
    """Without a compilation of the initialisers; heads are positive, as trained ones are."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lpips.init, jax.random.key(0))
    params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
    return params | {"heads": jax.tree.map(np.abs, params["heads"])}


def quick(function):
    """Compiled in little time, not to little time."""
    return jax.jit(function, compiler_options=run_once_options())


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (2, 3, 32, 32, 3)).astype(np.float32)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("trunk", "side", "sides", "widths", "count"),
    [
        (VGG16, 64, (64, 32, 16, 8, 4), WIDTHS["vgg"], 14_714_688),
        (VGG16, 16, (16, 8, 4, 2, 1), WIDTHS["vgg"], 14_714_688),
        (AlexNet, 224, (55, 27, 13, 13, 13), WIDTHS["alex"], 2_469_696),
        (AlexNet, 31, (7, 3, 1, 1, 1), WIDTHS["alex"], 2_469_696),
    ],
)
def test_trunks_have_the_published_size(trunk, side, sides, widths, count):
    """torchvision's `features` have as many parameters."""
    net = Network(lambda rngs: trunk(rngs=rngs))
    params = jax.eval_shape(net.init, jax.random.key(0))
    assert num_parameters(params) == count
    taps = jax.eval_shape(net.apply, params, jnp.zeros((2, side, side, 3)))
    assert [tap.shape for tap in taps] == [(2, s, s, w) for s, w in zip(sides, widths, strict=True)]


@pytest.mark.parametrize(
    ("size", "grid"), [(3, (1, 1)), (3, (2, 5)), (3, (3, 3)), (5, (7, 4)), (5, (5, 6))]
)
def test_convolution_of_any_grid(size, grid):
    net = Network(lambda rngs: nnx.Conv(3, 4, (size, size), padding=size // 2, rngs=rngs))
    rng = np.random.default_rng(0)
    params = {"kernel": rng.standard_normal((size, size, 3, 4)), "bias": rng.standard_normal(4)}
    params = {name: value.astype(np.float32) for name, value in params.items()}
    x = rng.standard_normal((2, *grid, 3)).astype(np.float32)
    result, expected = quick(lambda p, x: (convolve(net.bind(p), x), net.apply(p, x)))(params, x)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_pooling_drops_an_odd_last_row_and_column():
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 3)).astype(np.float32)
    np.testing.assert_array_equal(max_pool(x), nnx.max_pool(x, (2, 2), strides=(2, 2)))


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_distance_is_symmetric_and_of_each_image_alone(net, pair):
    lpips = network(net)
    params = random_params(lpips)
    apply = quick(lpips.apply)
    distance = np.asarray(apply(params, *pair))
    assert distance.shape == (3,) and distance.dtype == np.float32 and np.all(distance > 0)
    np.testing.assert_allclose(apply(params, pair[1], pair[0]), distance, rtol=1e-6)
    assert np.max(apply(params, pair[0], pair[0])) < 1e-9  # rounding
    np.testing.assert_allclose(apply(params, pair[0, ::-1], pair[1, ::-1]), distance[::-1], 1e-5)


def test_bfloat16_products_give_float32_near_the_float32_distance(pair):
    params = random_params(network("alex"))
    expected = np.asarray(quick(network("alex").apply)(params, *pair))
    result = quick(network("alex", dtype=jnp.bfloat16).apply)(params, *pair)
    assert result.dtype == jnp.float32
    assert 1e-5 < relative_error(result, expected) < 0.05


def test_dead_features_have_a_finite_gradient():
    """A zero vector stays zero; the original's gradient there is NaN."""
    features = np.float32([[0, 0, 0, 0], [3, 0, 4, 0]])
    np.testing.assert_allclose(unit(features), [[0] * 4, [0.6, 0, 0.8, 0]], rtol=1e-6)
    gradient = quick(jax.grad(lambda f: jnp.sum(unit(f)[:, 0])))(features)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(("net", "side"), [("vgg", 16), ("alex", 31)])
def test_images_that_do_not_fit_are_refused(net, side):
    lpips = network(net)
    params = jax.eval_shape(lpips.init, jax.random.key(0))
    small = jnp.zeros((1, side - 1, 64, 3))
    with pytest.raises(ValueError, match=f"sides of at least {side} pixels, not {side - 1}x64"):
        jax.eval_shape(lpips.apply, params, small, small)
    with pytest.raises(ValueError, match="3 channels, not 1"):
        jax.eval_shape(lpips.apply, params, *[jnp.zeros((1, 64, 64, 1))] * 2)
    enough = jnp.zeros((1, side, side, 3))
    assert jax.eval_shape(lpips.apply, params, enough, enough).shape == (1,)


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_published_weights_rank_distortions_as_people_do(net):
    file, flowers = SHARED / "weights" / FILES[net], SHARED / "flowers12_64.npz"
    if not (file.is_file() and flowers.is_file()):
        pytest.skip(f"needs {file.name} and {flowers.name} in ../shared/data")
    lpips = network(net, WIDTHS[net])
    params = convert(open_tensors(file), weights.layouts(lpips), lpips)
    with np.load(flowers) as data:
        image, other = data["images"][:2].astype(np.float32) / 127.5 - 1
    noise = np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
    noisy = [image + level * noise for level in (0.0, 0.05, 0.15, 0.5)]

    blurred = jax.image.resize(
        jax.image.resize(image, (16, 16, 3), "linear"), image.shape, "linear"
    )
    shifted = image + np.sqrt(np.mean((blurred - image) ** 2))  # as far off in pixels
    versions = np.stack([*noisy, other, blurred, shifted])
    distance = np.asarray(quick(lpips.apply)(params, np.stack([image] * 7), versions))
    assert distance[0] < 1e-9
    assert np.all(np.diff(distance[:4]) > 0)
    assert distance[4] > distance[1]
    assert distance[5] > 2 * distance[6] > 0


@pytest.mark.parity
@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_parity_with_pytorch(net):
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    torch.manual_seed(0)
    model = originals.TorchLPIPS(net, WIDTHS[net])
    lpips = network(net, WIDTHS[net])
    params = convert(originals.published(model), weights.layouts(lpips), lpips)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-1, 1, (2, 2, 48, 40, 3)).astype(np.float32)

    ours = jax.jit(lambda p, x: lpips.bind(p).features(x))(params, x)
    for k, (result, expected) in enumerate(zip(ours, model.taps(originals.nchw(x)), strict=True)):
        expected = expected / expected.square().sum(1, keepdim=True).sqrt().clamp(min=1e-20)
        assert relative_error(result, originals.nhwc(expected)) <= 1e-4, f"tap {k}"

    images = originals.nchw(x).requires_grad_()
    expected = model(images, originals.nchw(y))
    expected.sum().backward()
    result = quick(lpips.apply)(params, x, y)
    assert relative_error(result, expected.detach().numpy()) <= 1e-4
    slope = jax.jit(jax.grad(lambda p, x, y: jnp.sum(lpips.apply(p, x, y)), argnums=1))
    gradient = slope(params, x, y)
    assert relative_error(gradient, originals.nhwc(images.grad)) <= 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_the_package_with_the_real_trunks(net):
    """The package brings its heads and we its trunk."""
    from torchvision_shim import importorskip

    published = importorskip("lpips")
    import torch

    file, flowers = SHARED / "weights" / FILES[net], SHARED / "flowers12_64.npz"
    if not (file.is_file() and flowers.is_file()):
        pytest.skip(f"needs {file.name} and {flowers.name} in ../shared/data")
    model = published.LPIPS(net=net, pnet_rand=True, verbose=False)
    lpips = network(net, WIDTHS[net])
    params = convert(open_tensors(file), weights.layouts(lpips), lpips)
    state = model.state_dict()
    for n, (part, index) in enumerate(weights.TORCH_CONVS[net]):
        kernel, bias = (params["trunk"]["convs"][n][name] for name in ("kernel", "bias"))
        state[f"net.slice{part}.{index}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1))
        state[f"net.slice{part}.{index}.bias"] = torch.from_numpy(bias)
    model.load_state_dict(state)
    for k, head in params["heads"].items():
        np.testing.assert_array_equal(head, state[f"lin{k}.model.1.weight"].numpy().ravel())

    with np.load(flowers) as data:
        x, y = data["images"][:4].astype(np.float32).reshape(2, 2, 64, 64, 3) / 127.5 - 1
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(v).movedim(-1, 1) for v in (x, y))).flatten()
    assert relative_error(quick(lpips.apply)(params, x, y), expected.numpy()) <= 1e-5
