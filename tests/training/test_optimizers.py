"""Schedules by hand, AdamW by hand, and which parameters decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import ROOT

from sphere_jax.config.config_files import load_config
from sphere_jax.config.options import OptimizerOptions
from sphere_jax.models import lightning_dit, sit
from sphere_jax.training.optimizers import learning_rates, make_optimizer, muon_labels, schedule


def rates(steps, **settings):
    chosen = schedule(OptimizerOptions(**settings), steps)
    return np.array([chosen(step) for step in range(steps + 1)])


def test_constant():
    np.testing.assert_allclose(rates(5, learning_rate=0.2), 0.2)


@pytest.mark.parametrize("warmup", [1, 2, 4])
def test_warmup_is_linear_and_never_starts_at_zero(warmup):
    got = rates(6, learning_rate=0.2, warmup=warmup)
    expected = 0.2 * np.minimum(1.0, np.arange(1, 8) / warmup)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_cosine_ends_at_its_fraction_of_the_peak():
    got = rates(20, learning_rate=0.2, schedule="cosine", warmup=4, final_fraction=0.1)
    turn = (1 + np.cos(np.pi * np.arange(17) / 16)) / 2
    np.testing.assert_allclose(got[4:], 0.2 * (0.1 + 0.9 * turn), rtol=1e-5)
    np.testing.assert_allclose(got[-1], 0.02, rtol=1e-5)


def test_cosine_can_end_early():
    """E ends it one warm-up before the last step (docs/systems/sphere_encoder.md#optimization)."""
    cosine = dict(learning_rate=0.2, schedule="cosine", warmup=4, final_fraction=0.1)
    got = rates(20, **cosine, hold=6)
    np.testing.assert_allclose(got[:15], rates(14, **cosine), rtol=1e-6)
    np.testing.assert_allclose(got[14:], 0.02, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "epochs", "rising"),
    [
        ("imagenet", 800, 5),
        ("cifar10", 5000, 10),
        ("flowers", 1000, 10),
        ("animal_faces", 1000, 10),
    ],
)
def test_the_schedule_of_sphere_encoder(name, epochs, rising):
    """By the released formula: (k + 1) / (w + 1) of the peak, then a cosine between the two
    warm-up lengths to 1e-6 (docs/systems/sphere_encoder.md#optimization)."""
    stage = load_config(str(ROOT / "configs" / f"{name}_sphere_encoder.py")).stage("sphere_encoder")
    w, steps = stage.steps * rising // epochs, stage.steps
    end = steps - w

    def released(k):
        if k < w:
            return 1e-4 * (k + 1) / (w + 1)
        turn = 0.5 * (1 + np.cos(np.pi * min((k - w) / (end - w), 1.0)))
        return 1e-6 + turn * (1e-4 - 1e-6)

    at = [0, 1, w // 2, w - 1, w, w + 1, 2 * w, steps // 2, end - w, end, end + 1, steps - 1]
    found = [schedule(stage.optimizer, steps)(k) for k in at]
    # The cosine starts one step after the released one, which moves it by a step at most.
    atol = 1e-4 * (2 / steps + 1e-6)
    np.testing.assert_allclose(found, [released(k) for k in at], atol=atol, rtol=0)


def test_a_line_after_a_constant_start():
    """The schedule of RAE and RJF (docs/systems/hae.md#rjf): 40 epochs, then down to a tenth."""
    line = dict(learning_rate=0.2, schedule="linear", final_fraction=0.1)
    fall = np.linspace(0.2, 0.02, 13)
    got = rates(20, **line, constant_steps=5, hold=3)
    np.testing.assert_allclose(got, np.r_[[0.2] * 5, fall, [0.02] * 3], rtol=1e-5)
    got = rates(20, **line, warmup=2, constant_steps=4, hold=2)
    np.testing.assert_allclose(got, np.r_[0.1, [0.2] * 5, fall, [0.02] * 2], rtol=1e-5)
    np.testing.assert_allclose(rates(12, **line), fall, rtol=1e-5)


def test_a_fall_of_its_own_length():
    """RJF's ends at epoch 800 in runs of 80 and of 1,400 (docs/systems/hae.md#rjf)."""
    line = dict(learning_rate=0.2, schedule="linear", final_fraction=0.1, constant_steps=4)
    published = rates(16, **line)
    np.testing.assert_array_equal(rates(8, **line, fall_steps=12), published[:9])
    longer = rates(20, **line, fall_steps=12)
    np.testing.assert_array_equal(longer[:17], published)
    np.testing.assert_allclose(longer[16:], 0.02, rtol=1e-6)


def test_a_cosine_after_a_constant_start():
    cosine = dict(learning_rate=0.2, schedule="cosine", final_fraction=0.1)
    got = rates(20, **cosine, constant_steps=8)
    np.testing.assert_allclose(got, np.r_[[0.2] * 8, rates(12, **cosine)], rtol=1e-6)


def test_parts_learn_at_their_own_rates():
    settings = OptimizerOptions(learning_rate=0.1, weight_decay=0.5)
    params = {name: {"kernel": jnp.full((1, 1), 2.0)} for name in ("encoder", "decoder")}
    grads = jax.tree.map(jnp.ones_like, params)
    found = {}
    for rates_of in (None, {"encoder": 0.25}):
        optimizer = make_optimizer(settings, 10, rates_of)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        found[bool(rates_of)] = jax.tree.map(float, jax.tree.map(jnp.sum, updates))
    plain, scaled = found[False], found[True]
    assert scaled["decoder"] == plain["decoder"]
    np.testing.assert_allclose(
        scaled["encoder"]["kernel"], 0.25 * plain["encoder"]["kernel"], rtol=1e-6
    )


def test_a_warmup_longer_than_the_run():
    assert rates(3, learning_rate=0.3, schedule="cosine", warmup=6)[2] == pytest.approx(0.15)


def test_adamw_by_hand():
    settings = OptimizerOptions(learning_rate=0.1, b1=0.8, b2=0.9, weight_decay=0.5)
    optimizer = make_optimizer(settings, 10)
    params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([2.0])}
    state = optimizer.init(params)
    m = v = 0.0
    theta = {"kernel": 2.0, "bias": 2.0}
    for t, gradient in enumerate([1.0, -0.3, 0.2], 1):
        grads = jax.tree.map(lambda p, g=gradient: jnp.full_like(p, g), params)
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
        step = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
        theta["kernel"] -= 0.1 * (step + 0.5 * theta["kernel"])
        theta["bias"] -= 0.1 * step
        for name, value in theta.items():
            np.testing.assert_allclose(params[name].squeeze(), value, rtol=1e-5)


@pytest.mark.parametrize(("eps", "equal"), [(768e-8, True), (1e-8, False)])
def test_a_loss_768_times_as_large_trains_alike_if_eps_is(eps, equal):
    """At RJF's own scale most second moments lie below eps: docs/systems/hae.md#rjf."""
    params = {"kernel": jnp.zeros((4, 4))}
    rng = np.random.default_rng(0)
    gradients = [jnp.asarray(1e-9 * rng.normal(size=(4, 4)), jnp.float32) for _ in range(20)]

    def trained(eps, scale):
        optimizer = make_optimizer(OptimizerOptions(learning_rate=1e-3, b2=0.95, eps=eps), 20)
        state, now = optimizer.init(params), params
        for gradient in gradients:
            updates, state = optimizer.update({"kernel": scale * gradient}, state, now)
            now = jax.tree.map(jnp.add, now, updates)
        return np.asarray(now["kernel"])

    ours, theirs = trained(eps, 768.0), trained(1e-8, 1.0)
    apart = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert apart < 1e-5 if equal else apart > 1.0


@pytest.mark.parametrize(
    ("network", "options"),
    [(sit.NETWORK, {}), (lightning_dit.NETWORK, {"qk_norm": True})],
    ids=["sit", "lightning_dit"],
)
def test_stacked_biases_and_scales_do_not_decay(network, options):
    options = network.Options(width=32, depth=2, heads=2, **options)
    shapes = jax.eval_shape(network.build(options, (2, 2, 4), 10).init, jax.random.key(0))
    optimizer = make_optimizer(OptimizerOptions(learning_rate=0.1, weight_decay=0.5), 10)
    none = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    filled = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
    updates, _ = jax.jit(optimizer.update)(none, optimizer.init(filled), filled)
    decayed = {"kernel": 0, "table": 0}
    for path, change in jax.tree_util.tree_leaves_with_path(updates):
        leaf = path[-1].key
        if leaf in decayed:
            decayed[leaf] += 1
            np.testing.assert_allclose(change, -0.05, rtol=1e-6)
        else:
            assert not np.any(change), f"{jax.tree_util.keystr(path)} {change.shape} decays"
    assert decayed["kernel"] > 5 and decayed["table"] == 1


def test_no_steps_keep_no_moments():
    """Published weights that are not trained need no memory for moments."""
    state = make_optimizer(OptimizerOptions(), 0, {"network": 0.1}).init({"network": jnp.ones(5)})
    assert not jax.tree.leaves(state)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(warmup=3),
        dict(schedule="cosine", warmup=4),
        dict(schedule="linear", hold=2),
    ],
)
def test_the_rates_on_the_host_are_those_of_the_schedule(settings):
    options = OptimizerOptions(learning_rate=0.2, **settings)
    expected = [float(schedule(options, 9)(step)) for step in range(9)]
    np.testing.assert_allclose(learning_rates(options, 9), expected, rtol=1e-6)
    assert learning_rates(options, 0).shape == (0,)


def stacked_params(depth=3):
    """A convolution, a linear layer, a stack of linear layers, tables, biases, as networks have."""
    keys = iter(jax.random.split(jax.random.key(0), 8))

    def normal(*shape):
        return jax.random.normal(next(keys), shape)

    return {
        "part": {
            "conv": {"kernel": normal(3, 3, 4, 4), "bias": normal(4)},
            "linear": {"kernel": normal(8, 6), "bias": normal(6)},
            "blocks": {
                "layers": {"mlp": {"kernel": normal(depth, 6, 8), "bias": normal(depth, 8)}}
            },
            "positions": normal(5, 6),
        }
    }


def test_muon_updates_kernels_of_linear_layers_alone():
    params = stacked_params()
    labels = muon_labels(params)["part"]
    assert labels["linear"] == {"kernel": "muon", "bias": "adamw"}
    assert labels["blocks"]["layers"]["mlp"] == {"kernel": "muon", "bias": "adamw"}
    assert labels["conv"] == {"kernel": "adamw", "bias": "adamw"}
    assert labels["positions"] == "adamw"


def test_muon_orthogonalises_each_layer_and_leaves_the_rest_to_adamw():
    params = stacked_params()
    grads = jax.tree.map(lambda p: jnp.sin(3 * p), params)
    settings = dict(learning_rate=0.01, b2=0.95)
    muon = make_optimizer(OptimizerOptions(**settings, matrices="muon", muon_rate=5.0), 10)
    adamw = make_optimizer(OptimizerOptions(**settings), 10)
    updates, _ = muon.update(grads, muon.init(params), params)
    plain, _ = adamw.update(grads, adamw.init(params), params)

    for kernel in [
        updates["part"]["linear"]["kernel"],
        *updates["part"]["blocks"]["layers"]["mlp"]["kernel"],
    ]:
        values = np.linalg.svd(np.asarray(kernel), compute_uv=False)
        grown = np.sqrt(max(1.0, kernel.shape[1] / kernel.shape[0]))  # wider outputs, as published
        # Newton-Schulz of five steps leaves singular values between about 0.7 and 1.2.
        assert np.all(values > 0.6 * 0.05 * grown) and np.all(values < 1.3 * 0.05 * grown)
    for name in ("conv", "positions"):
        jax.tree.map(np.testing.assert_array_equal, updates["part"][name], plain["part"][name])
    np.testing.assert_array_equal(
        updates["part"]["linear"]["bias"], plain["part"]["linear"]["bias"]
    )
