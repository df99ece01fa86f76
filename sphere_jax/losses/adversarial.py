"""The adversarial part of a decoder's objective: hinge losses and VQGAN's adaptive weight."""

import jax
import jax.numpy as jnp

LARGEST = 1e4  # adaptive weight


def discriminator_hinge(real: jax.Array, decoded: jax.Array) -> jax.Array:
    """`(mean relu(1 - D(real)) + mean relu(1 + D(decoded))) / 2` of logits, a float32 scalar."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + decoded)))


def decoder_hinge(decoded: jax.Array) -> jax.Array:
    """`-mean D(decoded)` of logits, a float32 scalar."""
    return -jnp.mean(decoded)


def adaptive_weight(reconstruction, adversarial) -> jax.Array:
    """`|g_rec| / (|g_adv| + 1e-4)`, at most 1e4: a float32 scalar, constant for gradients.

    Both are gradients of a loss in the kernels of the decoder's last layer, trees of arrays
    (methods.md A.5; VQGAN).
    """
    ratio = _norm(reconstruction) / (_norm(adversarial) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, LARGEST))


def _norm(tree) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(tree)))


@jax.custom_vjp
def with_gradient(value: jax.Array, at, gradient) -> jax.Array:
    """The scalar `value`, whose gradient in the tree `at` is `gradient`, of the same form.

    For an objective whose terms are weighed by their own gradients: those are known before it is
    differentiated, and going back through the network once is enough.
    """
    return value


def _forward(value, at, gradient):
    return value, gradient


def _backward(gradient, cotangent):
    scaled = jax.tree.map(lambda g: cotangent * g, gradient)
    return cotangent, scaled, jax.tree.map(jnp.zeros_like, gradient)


with_gradient.defvjp(_forward, _backward)
