"""The adversarial part of a decoder's objective: hinge losses and the adaptive weight of VQGAN."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PyTree

from sphere_jax.common.shapes import AnyArray

Scalar = Float32[Array, ""]
Logits = Float[AnyArray, "..."]
Gradients = PyTree[Float[AnyArray, "..."]]

LARGEST = 1e4  # adaptive weight


def discriminator_hinge(real: Logits, decoded: Logits) -> Scalar:
    """`(mean relu(1 - D(real)) + mean relu(1 + D(decoded))) / 2`, a scalar; logits of any shape."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + decoded)))


def decoder_hinge(decoded: Logits) -> Scalar:
    """`-mean D(decoded)`, a scalar; logits of any shape."""
    return -jnp.mean(decoded)


def adaptive_weight(reconstruction: Gradients, adversarial: Gradients) -> Scalar:
    """`|g_rec| / (|g_adv| + 1e-4)`, at most 1e4: a float32 scalar, constant for gradients.

    Both are gradients of a loss in the kernels of the decoder's last layer, trees of arrays
    (arXiv 2605.15193; docs/systems/spherical_flow.md#decoder-adaptation; VQGAN).
    """
    ratio = _norm(reconstruction) / (_norm(adversarial) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, LARGEST))


def _norm(tree: Gradients) -> Scalar:
    return jnp.sqrt(sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(tree)))


@jax.custom_vjp
def with_gradient(value: Scalar, at: Gradients, gradient: Gradients) -> Scalar:
    """The scalar `value`, with `gradient` as its gradient in the tree `at`, of the same shapes.

    For an objective whose terms are weighted by their gradients: those are computed before it is
    differentiated, so a single backward pass through the network is enough.
    """
    return value


def _forward(value, at, gradient):
    return value, gradient


def _backward(gradient, cotangent):
    scaled = jax.tree.map(lambda g: cotangent * g, gradient)
    return cotangent, scaled, jax.tree.map(jnp.zeros_like, gradient)


with_gradient.defvjp(_forward, _backward)
