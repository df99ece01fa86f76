"""The adversarial part of a decoder's objective: hinge losses and the adaptive weight of VQGAN."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


def adaptive_weight(reconstruction: Gradients, adversarial: Gradients, eps: float = 1e-4) -> Scalar:
    """`|g_rec| / (|g_adv| + eps)`, at most 1e4: a float32 scalar, constant for gradients.

    `eps` is 1e-4 in VQGAN, 1e-6 in RAE. Both are gradients of a loss in the kernels of the
    decoder's last layer, trees of arrays (arXiv 2605.15193;
    docs/systems/spherical_flow.md#decoder-adaptation; VQGAN).
    """
    ratio = _norm(reconstruction) / (_norm(adversarial) + eps)
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


class Balanced(NamedTuple):
    """`loss` has the gradient of `reconstruction + scale adversarial`, `scale` being a constant;
    `output` is what the network made, a constant."""

    loss: Scalar
    output: Any
    parts: dict[str, Scalar]
    adversarial: Scalar
    weight: Scalar


def balanced(
    network: Callable[[Gradients], Any],
    params: Gradients,
    reconstruction: Callable[[Any], tuple[Scalar, dict[str, Scalar]]],
    adversarial: Callable[[Any], Scalar],
    last_layer: Callable[[Gradients], Gradients],
    scale: Scalar | float,
    eps: float = 1e-4,
) -> Balanced:
    """A network's loss whose adversarial term is weighted by `scale` and an `adaptive_weight`.

    The network runs forward and backward once: its gradient is that of a weighted sum whose weight
    depends on the gradients of the summands in the last layer.

    Args:
      network: of `params`; its output is an array or a tree.
      reconstruction, adversarial: of that output; the former with more scalars by name.
      last_layer: of a gradient of `params`, that of the kernels which balance both terms.
    """
    output, back = jax.vjp(network, jax.lax.stop_gradient(params))
    reconstructed, by_output, parts = jax.vjp(reconstruction, output, has_aux=True)
    (by_output,) = by_output(jnp.ones_like(reconstructed))
    fooling, by_logit = jax.value_and_grad(adversarial)(output)
    weight = adaptive_weight(last_layer(back(by_output)[0]), last_layer(back(by_logit)[0]), eps)
    scale = scale * weight
    (gradient,) = back(jax.tree.map(lambda a, b: a + scale * b, by_output, by_logit))
    loss = with_gradient(reconstructed + scale * fooling, params, gradient)
    return Balanced(loss, jax.lax.stop_gradient(output), parts, fooling, weight)
