"""The normalisation that networks trained on ImageNet expect."""

import jax
import jax.numpy as jnp

from sphere_jax.nn.norms import per_channel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


def normalize(images: jax.Array) -> jax.Array:
    """RGB (B, H, W, 3) in [0, 1] to mean zero and deviation one over ImageNet, float32."""
    return (images - _channels(MEAN)) / _channels(STD)


def denormalize(images: jax.Array) -> jax.Array:
    """Inverse of `normalize`."""
    return images * _channels(STD) + _channels(MEAN)


def _channels(values: tuple[float, ...]) -> jax.Array:
    return per_channel(jnp.asarray(values, jnp.float32), 4)
