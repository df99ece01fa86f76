"""Noise of a sample as a function of the seed and the sample's index alone."""

import jax
import jax.numpy as jnp


def sample_keys(key, indices):
    """One key for each of the samples `indices (B,)`: a function of `(key, index)` only."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(indices, jnp.uint32))


def noise_of(keys, shape):
    """Standard Gaussian `(B, *shape)` float32 from the keys (B,) of samples.

    A row depends on its key only: the same bits whatever the batch, jit or sharding.
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def sample_noise(key, indices, shape):
    """Standard Gaussian `(B, *shape)` float32 for the samples `indices (B,)`."""
    return noise_of(sample_keys(key, indices), shape)
