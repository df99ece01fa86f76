"""A part that begins to learn later: its moments and its schedule begin with it."""

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.config.options import OptimizerOptions
from sphere_jax.training.optimizers import make_optimizer

OPTIONS = OptimizerOptions(learning_rate=0.1, schedule="cosine", warmup=2)


def path(optimizer, params, count, first=0):
    """Parameters after each step, with the gradients of step `first` on."""
    state, found = optimizer.init(params), []
    for n in range(first, first + count):
        slopes = jax.tree.map(lambda p, n=n: jnp.cos(n + p), params)
        updates, state = jax.jit(optimizer.update)(slopes, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append(params)
    return found


def test_a_late_part_learns_as_if_training_began_with_it():
    params = {"early": jnp.ones(3), "late": jnp.arange(3.0)}
    found = path(make_optimizer(OPTIONS, 10, {"late": 0.5}, {"late": 4}), params, 10)
    for step in range(4):
        np.testing.assert_array_equal(found[step]["late"], params["late"])
    alone = path(make_optimizer(OPTIONS, 10, {"late": 0.5}), {"late": params["late"]}, 6, first=4)
    early = path(make_optimizer(OPTIONS, 10), {"early": params["early"]}, 10)
    for step in range(10):
        np.testing.assert_allclose(found[step]["early"], early[step]["early"], rtol=1e-6)
        if step >= 4:
            np.testing.assert_allclose(found[step]["late"], alone[step - 4]["late"], rtol=1e-6)


def test_without_late_parts_the_state_is_as_before():
    params = {"part": jnp.ones(3)}
    plain = jax.tree.structure(make_optimizer(OPTIONS, 10).init(params))
    assert jax.tree.structure(make_optimizer(OPTIONS, 10, {}, {"part": 0}).init(params)) == plain
