"""Noise of a sample as a function of the seed and the sample's index alone."""

import jax
import jax.numpy as jnp


def sample_noise(key, indices, shape):
    """Standard Gaussian `(B, *shape)` float32 for the samples `indices (B,)`.

    Row i depends on `(key, indices[i])` only: the same bits whatever the batch, jit or sharding.
    """

    def one(index):
        return jax.random.normal(jax.random.fold_in(key, index), shape, jnp.float32)

    return jax.vmap(one)(jnp.asarray(indices, jnp.uint32))
