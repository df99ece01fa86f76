"""One train step: accumulation, clipping, the guard against NaN, and the moving average."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sphere_jax.config.options import OptimizerOptions, StageOptions
from sphere_jax.config.reading import read_config
from sphere_jax.methods.base import Method
from sphere_jax.runs.system import System
from sphere_jax.training.averages import lag_notes, update_ema
from sphere_jax.training.step import init_state, make_train_step

SGD = optax.sgd(1.0)  # the change of parameters is the gradient
ADAM = optax.adam(0.1)


@cache
def compiled(method, options, optimizer):
    return jax.jit(make_train_step(method, options, optimizer))


def run_step(task, batch, sgd=SGD, state=None, **options):
    """One jitted step from `state` or from a fresh one: (before, after, metrics)."""
    options = dataclasses.replace(task.options, **options)
    state = state or fresh(task.method, sgd)
    return state, *compiled(task.method, options, sgd)(state, task.frozen, batch)


@cache
def fresh(method, optimizer, widths=()):
    init = jax.jit(lambda key: init_state(method, optimizer, key, {}, widths=widths))
    return init(jax.random.key(1))


@pytest.fixture(scope="module")
def batch(feed):
    return feed().train.read(np.arange(8))


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def assert_trees_equal(a, b):
    def same(x, y):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)

    jax.tree.map(same, a, b)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_is_the_gradient_of_the_whole_batch(task, batch, parts):
    _, whole, metrics = run_step(task(), batch)
    before, split, split_metrics = run_step(task(), batch, accumulate=parts)
    assert_trees_close(split["params"], whole["params"], rtol=2e-6, atol=2e-6)
    assert_trees_close(split_metrics, metrics, rtol=2e-6)
    change = whole["params"]["line"]["kernel"] - before["params"]["line"]["kernel"]
    assert np.abs(change).max() > 0.1


@pytest.mark.slow
def test_accumulation_with_the_flow_method(task):
    raw = {
        "stages": ("flow",),
        "data": {"source": "latents"},
        "tokenizer": {"name": "precomputed", "latent_shape": (2, 2, 4)},
        "model": {"width": 16, "depth": 1, "heads": 2, "patch": 1},
        "flow": {"radial_weight": 0.3, "label_dropout": 0.5},
    }
    method = System(read_config(raw)).methods["flow"]
    task = dataclasses.replace(task(), method=method, options=method.options)
    rng = np.random.default_rng(0)
    batch = {
        "latents": rng.normal(size=(8, 2, 2, 4)).astype(np.float32),
        "labels": rng.integers(0, 10, 8).astype(np.int32),
    }
    state = fresh(method, SGD)  # off its zero start:
    state = state | {"params": jax.tree.map(lambda p: p + 0.05, state["params"])}
    _, whole, metrics = run_step(task, batch, SGD, state)
    _, split, split_metrics = run_step(task, batch, SGD, state, accumulate=4)
    assert_trees_close(split["params"], whole["params"], rtol=1e-5, atol=1e-5)
    assert_trees_close(split_metrics, metrics, rtol=1e-5)
    assert metrics["gradient_norm"] > 0.1


def test_every_step_draws_different_noise(task, batch):
    before, state, first = run_step(task(), batch)
    _, _, second = run_step(task(), batch, state=state | {"params": before["params"]})
    assert first["loss"] != second["loss"]


def test_clipping_scales_to_the_norm_and_reports_the_norm_before(task, batch):
    before, _, free = run_step(task(), batch)
    norm = float(free["gradient_norm"])
    for limit, expected in ((norm / 3, norm / 3), (norm * 3, norm)):
        _, after, metrics = run_step(task(), batch, optimizer=OptimizerOptions(clip_norm=limit))
        moved = jax.tree.map(lambda a, b: a - b, after["params"], before["params"])
        np.testing.assert_allclose(optax.tree.norm(moved), expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-6)


class Rivals(Method):
    """Two parts of very different gradients, and a third beside the first."""

    trains = ("player", "critic", "third")

    def init(self, key, frozen):
        return {name: {"w": jnp.zeros(4)} for name in self.trains}

    def loss(self, params, frozen, batch, keys):
        slopes = {"player": 3.0, "critic": 1e4, "third": 4.0}  # each times sqrt(4)
        return sum(slope * jnp.sum(params[name]["w"]) for name, slope in slopes.items()), {}


@pytest.mark.parametrize("apart", [(), ("critic",)])
def test_a_part_clipped_apart_leaves_the_others_their_step(apart):
    method, sgd = Rivals(), SGD
    method.clipped_apart = apart
    state = init_state(method, sgd, jax.random.key(0), {})
    step = jax.jit(
        make_train_step(method, StageOptions(optimizer=OptimizerOptions(clip_norm=5.0)), sgd)
    )
    after, metrics = step(state, {}, {"labels": jnp.zeros((1,), jnp.int32)})
    moved = {name: -float(tree["w"][0]) for name, tree in after["params"].items()}
    whole = 2 * np.sqrt(3**2 + 1e8 + 4**2)
    np.testing.assert_allclose(metrics["gradient_norm"], whole, rtol=1e-6)  # of all, before
    scales = (0.5, 5 / 2e4) if apart else (5 / whole, 5 / whole)  # |(6, 8)| = 10 halves
    expected = {"player": 3 * scales[0], "critic": 1e4 * scales[1], "third": 4 * scales[0]}
    assert moved == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing(task, batch, bad):
    task, adam = task(), ADAM
    _, state, metrics = run_step(task, batch, adam, fresh(task.method, adam, (0.1,)))
    assert metrics["finite"]
    assert_trees_close(state["profiles"], {"0.1": state["params"]})  # the first of its averages
    latents = batch["latents"].copy()
    latents[3, 1] = bad
    before, after, metrics = run_step(task, batch | {"latents": latents}, adam, state)
    assert not metrics["finite"]
    for part in ("params", "ema", "optimizer", "profiles"):
        assert_trees_equal(after[part], before[part])
    assert after["progress"]["step"] == 2 and after["progress"]["updates"] == 1


class Steep(Method):
    """A finite loss with a gradient that is not: sqrt at 0."""

    def init(self, key, frozen):
        return {"w": jnp.zeros((1,))}

    def loss(self, params, frozen, batch, keys):
        return jnp.sum(jnp.sqrt(params["w"])), {}


def test_a_gradient_that_is_not_finite_is_detected():
    state = init_state(Steep(), SGD, jax.random.key(0), {})
    step = jax.jit(make_train_step(Steep(), StageOptions(), SGD))
    after, metrics = step(state, {}, {"labels": jnp.zeros((1,), jnp.int32)})
    assert np.isfinite(metrics["loss"]) and not metrics["finite"]
    assert after["params"]["w"] == 0.0


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 0.9999])
def test_the_average_is_the_weighted_mean_from_the_first_step(decay):
    values = np.random.default_rng(0).normal(size=(60, 5)) + 3.0
    ema = jnp.full((5,), 9.0)  # the start is no parameter of the run
    update = jax.jit(update_ema, static_argnums=2)
    for t, value in enumerate(values):
        ema = update(ema, jnp.asarray(value, jnp.float32), decay, jnp.int32(t))
        weights = decay ** np.arange(t, -1.0, -1.0)
        expected = weights @ values[: t + 1] / weights.sum()
        np.testing.assert_allclose(ema, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("decay", "steps", "says"),
    [(0.999, 1200, True), (0.99, 1200, False), (0.9999, 500_000, False), (0.5, 0, False)],
)
def test_an_average_over_most_of_a_run_is_said(decay, steps, says):
    assert [f"ema_decay={decay:g}" in text for text in lag_notes(decay, steps)] == [True] * says


def test_the_average_is_float32_whatever_the_parameters():
    state = init_state(Half(), SGD, jax.random.key(0), {})
    assert state["ema"]["w"].dtype == jnp.float32 and state["params"]["w"].dtype == jnp.bfloat16


class Half(Method):
    def init(self, key, frozen):
        return {"w": jnp.ones((2,), jnp.bfloat16)}
