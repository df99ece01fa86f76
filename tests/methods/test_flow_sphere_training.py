"""flow-sphere's objective and sampler by hand (docs/systems/flow_sphere.md)."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.config.reading import read_config
from sphere_jax.data.source import Source
from sphere_jax.geometry import sphere
from sphere_jax.methods import flow_sphere_sampling
from sphere_jax.methods.flow_sphere_measures import norm_statistics
from sphere_jax.nn.pixels import to_float
from sphere_jax.runs.system import System
from sphere_jax.sampling import Refinement, mix, noise_of, refine_steps
from sphere_jax.sampling.refinement import CLAMP
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step

CLASSES = 3
TINY = {
    "stages": ("flow_sphere",),
    "data": {"source": "digits", "image_size": 8, "num_classes": CLASSES},
    "tokenizer": {
        "name": "flow_sphere",
        "width": 16,
        "depth": 1,
        "heads": 2,
        "head_dim": 4,
        "hidden": 16,
        "patch": 4,
        "latent_channels": 8,
        "unroll": False,
    },  # fmt: skip
    "flow_sphere": {
        "steps": 10,
        "warmup": 3,
        "batch_size": 4,
        "width": 16,
        "depth": 1,
        "head_dim": 4,
        "hidden": 16,
    },  # fmt: skip
}


def method(tokenizer=None, sampler=None, **settings):
    tree = TINY | {
        "tokenizer": TINY["tokenizer"] | (tokenizer or {}),
        "flow_sphere": TINY["flow_sphere"] | settings,
        "sampler": sampler or {},
    }
    return System(read_config(tree)).methods["flow_sphere"]


def batch_of(count=4):
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8),
        "labels": np.arange(count, dtype=np.int32) % CLASSES,
    }


def moved(m):
    """Random parameters, none of them zero."""
    shapes = jax.eval_shape(m.init, jax.random.key(0), {})
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(0.2 * rng.normal(size=p.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def params():
    return moved(method())


def gradients(m, params, *steps):
    """Loss, its parts and gradients at each of some steps."""
    keys = m.keys(jax.random.key(2), 4)

    def loss(params, step):
        return m.loss(params, {"schedule": m.schedule(step)}, batch_of(), keys)

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    found = [slope(params, jnp.int32(step)) for step in steps]
    return [(*values, grads) for values, grads in found]


def size(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_the_refiner_joins_after_the_warm_up(params):
    (_, before, grads), (total, after, later) = gradients(method(), params, 2, 3)
    assert before["flow"] == 0.0 and size(grads["refiner"]) == 0.0 and size(grads["encoder"]) > 0.0
    assert after["flow"] > 0.0 and size(later["refiner"]) > 0.0
    for name in ("reconstruction", "consistency", "latent"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5)
    np.testing.assert_allclose(total, sum(after.values()), rtol=1e-6)


def test_weight_decay_leaves_the_refiner_alone_until_it_joins():
    """Muon decays what has no gradient, which PyTorch leaves out."""
    m = method(optimizer={"matrices": "muon", "muon_decay": 0.5, "learning_rate": 0.01})
    optimizer = make_optimizer(m.options.optimizer, m.options.steps)
    state = init_state(m, optimizer, jax.random.key(0), {})
    state["params"] = moved(m)
    step = jax.jit(make_train_step(m, m.options, optimizer))
    kernels = []
    for _ in range(5):  # it joins at step 3
        kernels.append(np.asarray(state["params"]["refiner"]["context"]["kernel"]))
        state, _ = step(state, {}, batch_of())
    for early in kernels[1:4]:
        np.testing.assert_array_equal(early, kernels[0])
    assert np.abs(kernels[4] - kernels[3]).max() > 0.0


@pytest.mark.parametrize("reaches", [True, False])
def test_gradients_of_the_flow_reach_the_encoder_if_they_should_and_never_the_decoder(
    params, reaches
):
    off = dict(reconstruction_weight=0.0, consistency_weight=0.0, latent_weight=0.0)
    ((_, _, grads),) = gradients(method(**off, encoder_gradients=reaches), params, 9)
    assert (size(grads["encoder"]) > 0.0) == reaches
    assert size(grads["decoder"]) == 0.0


def test_the_latent_loss_trains_the_encoder_alone(params):
    off = dict(reconstruction_weight=0.0, consistency_weight=0.0, flow_weight=0.0)
    ((_, _, grads),) = gradients(method(**off), params, 9)
    assert size(grads["encoder"]) > 0.0 and size(grads["decoder"]) == 0.0


def test_angles_of_the_noise():
    """Uniform to 80 degrees, a tenth of them between 80 and 85; the low one below half of it."""
    m = method(max_angle=80.0, hard_angle=85.0, hard_fraction=0.1)
    keys = jax.random.split(jax.random.key(0), 20_000)
    high, low = m._sigmas(keys)
    angles = np.degrees(np.arctan(high))
    np.testing.assert_allclose(np.mean(angles > 80.0), 0.1, atol=0.01)
    assert angles.max() < 85.01
    soft = angles[angles < 80.0]
    np.testing.assert_allclose(np.quantile(soft, [0.25, 0.5, 0.75]), [20, 40, 60], atol=1.0)
    np.testing.assert_allclose(np.mean(low / high), 0.25, atol=0.01)
    assert np.all(low <= 0.5 * high)


@pytest.mark.parametrize(("noise_on", "scale"), [("sphere", 1.0), ("latent", 0.25)])
def test_where_the_noise_is_added(noise_on, scale):
    """On the sphere an angle is an angle; on a latent of RMS 4 it is about a quarter of it."""
    z = 4.0 * jax.random.normal(jax.random.key(0), (64, 8, 8, 32))
    e = jax.random.normal(jax.random.key(1), z.shape)
    m = method(noise_on=noise_on)
    base = sphere.spherify(z) if noise_on == "sphere" else z
    v = m.noised(base, e, 0.1).reshape(64, -1)
    u = sphere.spherify(z).reshape(64, -1)
    angles = sphere.angle(sphere.normalize(u), sphere.normalize(v))
    np.testing.assert_allclose(angles, np.arctan(0.1 * scale), rtol=0.1)


def counted(predict):
    """`predict`, and a list that grows when it is called."""
    calls = []

    def call(x, t, labels):
        jax.debug.callback(lambda: calls.append(1))
        return predict(x, t)

    return call, calls


@pytest.mark.parametrize(("steps", "evaluations"), [(0, 0), (1, 1), (2, 3), (10, 19)])
def test_a_perfect_prediction_is_reached_whatever_the_steps(steps, evaluations):
    rng = np.random.default_rng(0)
    clean, rough, noise = (jnp.asarray(rng.normal(size=(2, 4, 4, 1)), jnp.float32) for _ in "abc")
    predict, calls = counted(lambda x, t: clean + 0.0 * x)
    settings = Refinement(steps)
    got = refine_steps(settings, predict, rough, noise, (), jnp.zeros(2, jnp.int32), 0, 1.0)
    jax.effects_barrier()
    np.testing.assert_allclose(got, clean if steps else rough, atol=1e-6)
    assert len(calls) == settings.refinements == evaluations
    assert settings.evaluations == evaluations + 1
    assert dataclasses.replace(settings, scale=2.0).refinements == 2 * evaluations


def test_heun_steps_by_hand():
    """Two steps of a third and a prediction, with a network that shrinks its input."""
    rng = np.random.default_rng(0)
    rough, noise = (rng.normal(size=(2, 4, 4, 1)).astype(np.float32) for _ in "ab")
    predict, _ = counted(lambda x, t: (1.0 - 0.5 * t[:, None, None, None]) * x)
    given = (predict, rough, noise, (), jnp.zeros(2, int), 0, 1.0)
    got = refine_steps(Refinement(3, rho=0.6), *given)
    states = refine_steps(Refinement(3, rho=0.6), *given, states=True)
    assert len(states) == 4
    np.testing.assert_array_equal(states[-1], got)
    np.testing.assert_array_equal(states[0], mix(rough, noise, 0.6))
    for steps in (0, 1):
        states = refine_steps(Refinement(steps), *given, states=True)
        assert len(states) == steps + 1
        np.testing.assert_array_equal(states[-1], refine_steps(Refinement(steps), *given))
    x, h = 0.6 * noise + 0.4 * rough, 1.0 / 3.0

    def velocity(x, t):
        return (x - (1.0 - 0.5 * t) * x) / max(t, CLAMP)

    for t in (1.0, 2.0 / 3.0):
        first = velocity(x, t)
        x = x - 0.5 * h * (first + velocity(x - h * first, t - h))
    np.testing.assert_allclose(got, (1.0 - 0.5 * h) * x, rtol=1e-5, atol=1e-6)


def test_the_start_of_the_flow():
    a, b = jnp.ones((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 3.0)
    np.testing.assert_allclose(mix(a, b, 0.75), 0.75 * 3.0 + 0.25)
    assert method(rho=0.5).sampler.rho == 0.5
    assert method(rho=0.5, sampler={"rho": 0.25}).sampler.rho == 0.25


def test_samples_without_steps_are_decodes(params):
    m = method()
    keys, labels = jax.random.split(jax.random.key(4), 2), jnp.zeros(2, jnp.int32)
    draw = jax.jit(m.rough_and_refined, static_argnums=4)
    rough, refined = draw(params, keys, labels, 1.0, Refinement(0))
    np.testing.assert_array_equal(rough, refined)
    again, refined = draw(params, keys, labels, 1.0, Refinement(3))
    np.testing.assert_array_equal(rough, again)
    assert np.abs(refined - rough).max() > 1e-3


def test_an_edited_image_has_noise_of_its_own_in_latent_and_refiner(params, monkeypatch):
    m, drawn = method(), []

    def recorded(keys, shape):
        drawn.append(np.asarray(noise_of(keys, shape)).reshape(len(keys), -1))
        return jnp.asarray(drawn[-1]).reshape(len(keys), *shape)

    monkeypatch.setattr(flow_sphere_sampling, "noise_of", recorded)
    keys = jax.random.split(jax.random.key(0), 2)
    images = jnp.zeros((2, *m.tokenizer.image_shape))
    m.refine(params, keys, jnp.zeros(2, int), 1.0, Refinement(2), images=images)
    e, n = drawn
    assert not np.isclose(e, n[:, : e.shape[1]]).any()


def test_statistics_of_the_batch_norm_are_those_of_training_images(params):
    m, images = method(), batch_of(40)["images"]
    train = Source({"images": images, "labels": np.zeros(len(images), np.int32)})

    def map_over(function, params, *arrays):
        return np.asarray(jax.jit(function)(params, *arrays))

    statistics = norm_statistics(m.tokenizer, params, train, map_over)
    x = to_float(jnp.asarray(images))
    given = jax.jit(m.tokenizer.raw)(params | {"statistics": statistics}, x)
    np.testing.assert_allclose(given, jax.jit(m.tokenizer.raw)(params, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(max_angle=86.0), "hard_angle=85.0 must be at least"),
        (dict(accumulate=2), "statistics of the batch"),
        (dict(most_per_device=2), "statistics of the batch"),
        (dict(warmup=10), "leaves none of its 10 steps"),
        (dict(head_dim=6), "RoPE needs"),
        (dict(width=15), "width 15 is odd"),
        (dict(context=False, encoder_gradients=False), "changes nothing with context=False"),
        (dict(sampler={"guidance": 2.0}), "needs classes"),
    ],
)
def test_options_that_do_not_fit(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        method(**settings)


def test_a_conditional_one_is_guided():
    m = method(tokenizer={"conditional": True}, sampler={"guidance": 3.0})
    shapes, rng = jax.eval_shape(m.init, jax.random.key(0), {}), np.random.default_rng(1)
    params = jax.tree.map(
        lambda p: jnp.asarray(0.2 * rng.normal(size=p.shape), jnp.float32), shapes
    )
    keys, draw = jax.random.split(jax.random.key(4), 2), partial(m.rough_and_refined, params)
    labels = jnp.array([0, 1])
    _, plain = jax.jit(draw, static_argnums=3)(keys, labels, 3.0, m.sampler.with_scale(1.0))
    _, guided = jax.jit(draw, static_argnums=3)(keys, labels, 3.0, m.sampler)
    _, other = jax.jit(draw, static_argnums=3)(keys, labels[::-1], 3.0, m.sampler)
    assert np.abs(plain - guided).max() > 1e-4 and np.abs(guided - other).max() > 1e-4
