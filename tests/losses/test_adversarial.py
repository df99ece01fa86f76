"""Hinge losses and the adaptive weight by hand, and a gradient that is declared."""

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.losses.adversarial import (
    adaptive_weight,
    decoder_hinge,
    discriminator_hinge,
    with_gradient,
)


def test_hinges_by_hand():
    real, decoded = jnp.array([2.0, 0.5, -1.0]), jnp.array([-3.0, 0.0, 1.0, 2.0])
    np.testing.assert_allclose(
        discriminator_hinge(real, decoded), 0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 2 + 3) / 4)
    )
    assert decoder_hinge(decoded) == 0.0
    assert discriminator_hinge(real + 3, decoded - 3) == 0.0  # nothing left to learn


def test_the_weight_is_a_ratio_of_norms_within_bounds():
    ones = [jnp.ones((3, 4)), jnp.ones(4)]
    np.testing.assert_allclose(adaptive_weight([2 * x for x in ones], ones), 2.0, rtol=1e-4)
    assert adaptive_weight(ones, [1e-9 * x for x in ones]) == 1e4
    assert adaptive_weight([0 * x for x in ones], ones) == 0.0
    slope = jax.grad(lambda x: adaptive_weight([x], ones))(jnp.ones(3))
    np.testing.assert_array_equal(slope, 0.0)


def test_a_declared_gradient():
    at, gradient = {"a": jnp.ones(2), "b": jnp.zeros(())}, {"a": jnp.array([3.0, 4.0]), "b": 5.0}

    def loss(at, x):
        return 2 * with_gradient(x**2, at, gradient)

    value, (slope, other) = jax.jit(jax.value_and_grad(loss, (0, 1)))(at, 3.0)
    assert value == 18.0 and other == 12.0  # what goes into the value is differentiated as ever
    np.testing.assert_array_equal(slope["a"], [6.0, 8.0])
    assert slope["b"] == 10.0
