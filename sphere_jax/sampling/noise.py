"""The noise of a sample, a function of the seed and of the index of the sample alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Integer

from sphere_jax.common.shapes import AnyArray, Indices, Keys, OneKey


def sample_keys(key: OneKey, indices: Indices) -> Keys:
    """Keys `(B,)` of the samples `indices (B,)`, each a function of `(key, index)` only."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(indices, jnp.uint32))


def folded(keys: Keys, number: int | Integer[AnyArray, ""]) -> Keys:
    """Keys `(B,)` of the draw `number` of samples with these keys. Draw i below n is the key that
    `jax.random.split(key, n)` has at i: do not take both."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def noise_of(keys: Keys, shape: tuple[int, ...]) -> Float32[Array, " batch *shape"]:
    """Standard Gaussian noise `(B, *shape)` from the keys `(B,)` of samples.

    A row depends on its key only: the same bits in any batch, jitted or not, however sharded.
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def sample_noise(
    key: OneKey, indices: Indices, shape: tuple[int, ...]
) -> Float32[Array, " batch *shape"]:
    """Standard Gaussian noise `(B, *shape)` of the samples `indices (B,)`."""
    return noise_of(sample_keys(key, indices), shape)
