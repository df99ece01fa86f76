"""Geometry, features and scores are float32-exact however they are called; networks that a run
trains keep the precision that the user chose.

On CPU every product is exact, so what is asked is what the programs tell a device to do.
"""

import inspect

import jax
import jax.numpy as jnp
import pytest
from traced import equations

from sphere_jax.evaluation import fidelity, pairs, reconstruction
from sphere_jax.evaluation.features import published, small_classifier
from sphere_jax.evaluation.features.dinov3_vits16 import FEATURES as DINO
from sphere_jax.evaluation.features.inception_fid import FEATURES as INCEPTION
from sphere_jax.geometry import make_space, sphere
from sphere_jax.models import sit
from sphere_jax.studies.probing import distances
from sphere_jax.weights.catalogue import catalogue

HIGHEST = (jax.lax.Precision.HIGHEST,) * 2
IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)


def products(function, *args):
    """The precisions of all products and convolutions of a program, traced where the user's default
    is the roughest."""

    jitted = function if hasattr(function, "trace") else jax.jit(function)
    with jax.default_matmul_precision("bfloat16"):
        traced = jitted.trace(*args).jaxpr.jaxpr
    kinds = ("dot_general", "conv_general_dilated")
    found = (each for each in equations(traced) if each.primitive.name in kinds)
    return [each.params["precision"] for each in found]


def params_of(network):
    return jax.eval_shape(network.init, jax.random.key(0))


def public(module):
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def arguments_of(function, array):
    """Arrays for its parameters without a default, by their names."""
    given = {
        "key": jax.random.key(0),
        "shape": array.shape,
        "function": jnp.sin,
        **dict.fromkeys(("t", "dt", "alpha"), jnp.full(len(array), 0.3)),
    }
    parameters = inspect.signature(function).parameters.values()
    return [given.get(p.name, array) for p in parameters if p.default is p.empty]


@pytest.mark.parametrize("name", sorted(public(sphere).keys() - {"in_float32", "uniform"}))
def test_geometry_has_no_product_that_a_setting_lowers(name):
    """Not in its gradients either."""
    function, vectors = getattr(sphere, name), jnp.ones((4, 16))
    args = arguments_of(function, vectors)
    if name in ("exact_angle_noise", "rotation_noise", "rotate_away"):
        args[-1] = jnp.full(4, 0.3)
    out = function(*args)
    assert out.dtype == jnp.float32
    backward = jax.grad(lambda *args: jnp.sum(function(*args)), tuple(range(len(args))))
    assert not products(backward, *args)


@pytest.mark.parametrize(
    "path", ["linear", "polar", "data_projected", "shell_linear", "nlerp", "slerp"]
)
@pytest.mark.parametrize("kind", ["token", "global"])
def test_spaces_have_no_product_that_a_setting_lowers(path, kind):
    space, latents = make_space(path, kind, 0.0, (2, 2, 4), "exp"), jnp.ones((3, 2, 2, 4))
    for name in dir(space):
        method = getattr(space, name)
        if name.startswith("_") or not inspect.ismethod(method):
            continue
        args = arguments_of(method, latents)
        for leaf in jax.tree.leaves(method(*args)):
            assert leaf.dtype == jnp.float32, name
        assert not products(method, *args), name


@pytest.mark.parametrize("kind", [INCEPTION, DINO], ids=lambda kind: kind.name)
def test_published_features_are_exact(kind):
    network = catalogue()[kind.name].network()
    forward = published._forward(network, kind, ("features",), None)
    used = products(forward, params_of(network), IMAGES)
    assert len(used) > 8 and set(used) == {HIGHEST}


def test_the_small_classifier_is_exact_and_is_trained_exactly():
    network = small_classifier._network(IMAGES.shape[1:], 10)
    params = params_of(network)
    used = products(lambda p, x: small_classifier._forward(network, None, p, x), params, IMAGES)
    assert len(used) >= 4 and set(used) == {HIGHEST}

    def step(params, images):
        state, labels = small_classifier.ADAM.init(params), jnp.zeros(2, jnp.int32)
        return small_classifier._train_step(network, params, state, images, labels, 0.1)

    used = products(step, params, IMAGES)
    assert len(used) > 8 and set(used) == {HIGHEST}


def test_lpips_is_exact_in_scores_and_probes():
    network = fidelity._lpips()
    large = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
    scored = pairs.lpips_distances(network)
    for function in (scored, lambda p, *xy: distances._lpips(network, p, *xy)):
        used = products(function, params_of(network), large, large)
        assert len(used) >= 10 and set(used) == {HIGHEST}


def test_pixel_scores_have_no_product():
    for score in (reconstruction.psnr, reconstruction.ssim):
        assert not products(score, IMAGES, IMAGES)


def test_networks_keep_the_precision_of_the_user():
    """`bfloat16` is the setting that `products` traces under."""
    network = sit.NETWORK.build(sit.NETWORK.Options(width=32, depth=1, heads=2), (2, 2, 4), 3)
    z, t, y = jnp.ones((2, 2, 2, 4)), jnp.ones(2), jnp.zeros(2, jnp.int32)
    used = products(network.apply, params_of(network), z, t, y)
    rough = [precision for precision in used if precision != HIGHEST]
    assert len(rough) >= 6  # all but the two of the time embedding
    assert len(used) - len(rough) == 2
