"""The perceptual term: its weights, its gradient, its files, parity with PyTorch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from sphere_jax.common.errors import UserError
from sphere_jax.losses.perceptual import (
    Perceptual,
    classifier_input,
    describe,
    perceptual_files,
    perceptual_loss,
    rgb,
)
from sphere_jax.models.lpips import LPIPS
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"


class Classifier(nnx.Module):
    """In the place of ConvNeXt, which takes long to compile; parity tests have the real one."""

    def __init__(self, *, rngs):
        self.conv = nnx.Conv(3, 8, (8, 8), strides=8, rngs=rngs)
        self.head = Linear(8, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.tanh(self.conv(x)).mean((1, 2)))


lpips = Network(lambda rngs: LPIPS("alex", rngs=rngs, widths=(4, 4, 4, 8, 8)))
convnext = Network(lambda rngs: Classifier(rngs=rngs))
both = Perceptual(lpips, convnext)


def load(lpips, convnext):
    perceptual = perceptual_loss(bool(lpips), bool(convnext))
    files = perceptual_files(perceptual, lpips, convnext)
    return perceptual, {name: file.load() for name, file in files.items()}


compiled = jax.jit(jax.value_and_grad(both, argnums=(0, 1)), compiler_options=run_once_options())


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    shapes = {
        name: jax.eval_shape(network.init, jax.random.key(0))
        for name, network in (("lpips", lpips), ("convnext", convnext))
    }
    params = jax.tree.map(lambda s: rng.normal(0.1, 0.3, s.shape).astype(np.float32), shapes)
    params["lpips"]["heads"] = jax.tree.map(np.abs, params["lpips"]["heads"])  # as trained
    return params


@pytest.fixture(scope="module")
def pair():
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32, 3)).astype(np.float32)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def test_weights_of_the_terms(params, pair):
    """docs/systems/sphere_encoder.md#losses; a term that is left out takes its weight with it."""

    def everything(params, x, y):
        inputs = classifier_input(x), classifier_input(y)
        return (
            both(params, x, y),
            Perceptual(lpips, None)({"lpips": params["lpips"]}, x, y),
            Perceptual(None, convnext)({"convnext": params["convnext"]}, x, y),
            lpips.apply(params["lpips"], x, y),
            *(convnext.apply(params["convnext"], image) for image in inputs),
        )

    total, first, second, distances, *logits = jax.jit(
        everything, compiler_options=run_once_options()
    )(params, *pair)
    assert total.shape == () and total.dtype == jnp.float32
    mean, mse = np.mean(distances), np.mean((logits[0] - logits[1]) ** 2)
    assert mean > 0 and mse > 0
    np.testing.assert_allclose(total, (mean + 0.1 * mse) / 1.1, rtol=1e-5)
    np.testing.assert_allclose((first, second), (mean, mse), rtol=1e-5)
    assert both.active and Perceptual(lpips, None).active and Perceptual(None, convnext).active


def test_gradient_reaches_images_and_never_the_networks(params, pair):
    images, target = pair
    _, (of_params, of_images) = compiled(params, images, target)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_params))
    assert np.all(np.abs(of_images).max(axis=(1, 2, 3)) > 0)

    norm = np.sqrt(np.sum(np.square(of_images)))
    step = 0.1 * of_images / norm
    lower, upper = (compiled(params, images + sign * step, target)[0] for sign in (-1, 1))
    np.testing.assert_allclose((upper - lower) / 0.2, norm, rtol=0.01)


def test_equal_images_have_zero_loss_and_zero_gradient(params, pair):
    value, (_, of_images) = compiled(params, pair[0], pair[0])
    assert 0 <= value < 1e-9  # rounding: the two may be computed in different order
    assert np.abs(of_images).max() < 1e-5


def test_grey_and_half_precision_images_become_float32_colour(pair):
    grey = pair[0, ..., :1]
    np.testing.assert_array_equal(rgb(jnp.asarray(grey)), np.repeat(grey, 3, axis=-1))
    assert rgb(jnp.asarray(grey, jnp.bfloat16)).dtype == jnp.float32


def test_other_shapes_are_refused(params, pair, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users run it
    images, target = pair
    assert jax.eval_shape(both, params, images[..., :1], target[..., :1]).shape == ()
    with pytest.raises(ValueError, match="differ in shape"):
        both(params, images, target[:2])
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        both(params, images[..., :2], target[..., :2])
    with pytest.raises(ValueError, match="at least 31 pixels, not 8x32"):
        both(params, images[:, :8], target[:, :8])


def test_missing_weights_are_named():
    perceptual, params = load("", "")
    assert not perceptual.active and params == {}
    assert describe(perceptual).startswith("Perceptual loss: off, without LPIPS-VGG (")
    assert "'lpips'" in describe(perceptual) and "'convnext'" in describe(perceptual)
    assert describe(both) == "Perceptual loss: LPIPS-VGG and ConvNeXt-S logits on."
    assert describe(Perceptual(lpips, None)) == (
        "Perceptual loss: LPIPS-VGG on, without ConvNeXt-S logits (give the weights file as "
        "option 'convnext')."
    )


def test_bad_files_are_user_errors(tmp_path):
    missing, cut = str(tmp_path / "none.safetensors"), tmp_path / "cut.safetensors"
    other = tmp_path / "other.safetensors"
    save_file({"stem.0.weight": np.zeros((96, 3, 4, 4), np.float32)}, other)
    cut.write_bytes(other.read_bytes()[:-4])
    for lpips, convnext, words in (
        (missing, "", ("none.safetensors is not there", "lpips_vgg16")),
        ("", missing, ("none.safetensors is not there", "convnext_small")),
        ("", str(cut), ("cut.safetensors is not a whole .safetensors file",)),
        (str(other), "", ("does not give the weights of 'lpips_vgg16': 31 missing (",)),
        ("", str(other), ("does not give the weights of 'convnext_small': 343 missing (",)),
    ):
        with pytest.raises(UserError) as error:
            load(lpips, convnext)
        assert all(word in str(error.value) for word in words), str(error.value)
        assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_published_lpips_is_loaded_and_an_alexnet_is_not():
    vgg, alexnet = (WEIGHTS / f"lpips_{name}.safetensors" for name in ("vgg16", "alexnet"))
    if not (vgg.is_file() and alexnet.is_file()):
        pytest.skip("needs the LPIPS weights in ../shared/data/weights")
    with pytest.raises(UserError, match="alexnet.safetensors does not give .* of 'lpips_vgg16'"):
        load(str(alexnet), "")
    perceptual, params = load(str(vgg), "")
    rng = np.random.default_rng(0)
    images = np.tanh(rng.standard_normal((2, 4, 4, 3))).repeat(8, 1).repeat(8, 2).astype("f4")
    noisy = images + 0.2 * rng.standard_normal(images.shape).astype("f4")
    value = jax.jit(perceptual, compiler_options=run_once_options())(params, noisy, images)
    assert 0.05 < value < 1.5


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(32, 32), (300, 250), (224, 224)])
def test_parity_of_the_resize(shape):
    pytest.importorskip("torch")
    import torch_originals as originals

    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape, 3)).astype(np.float32)
    expected = originals.nhwc(originals.classifier_input((originals.nchw(images) + 1) / 2))
    assert relative_error(jax.jit(classifier_input)(images), expected) <= 1e-4


@pytest.mark.parity
def test_parity_of_the_whole_from_files(tmp_path):
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    torch.manual_seed(0)
    vgg = originals.TorchLPIPS("vgg", (64, 128, 256, 512, 512))
    classifier = originals.TorchConvNeXt((3, 3, 27, 3), (96, 192, 384, 768))
    for name, model in (("lpips", vgg), ("convnext", classifier)):
        save_file(originals.published(model), tmp_path / f"{name}.safetensors")
    perceptual, params = load(
        str(tmp_path / "lpips.safetensors"), str(tmp_path / "convnext.safetensors")
    )
    pair = np.random.default_rng(0).uniform(-1, 1, (2, 2, 32, 32, 3)).astype(np.float32)
    x, y = map(originals.nchw, pair)
    x.requires_grad_()
    distance = vgg(x, y).mean()
    logits = [classifier(originals.classifier_input((v + 1) / 2)) for v in (x, y)]
    expected = (distance + 0.1 * (logits[0] - logits[1]).square().mean()) / 1.1
    expected.backward()
    value, gradient = jax.jit(jax.value_and_grad(perceptual, argnums=1))(params, *pair)
    assert relative_error(value, expected.detach().numpy()) <= 1e-4
    assert relative_error(gradient, originals.nhwc(x.grad)) <= 1e-4
