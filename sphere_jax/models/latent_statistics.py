"""Mean and spread of latents over a data set, published beside a tokenizer: nothing is computed."""

import jax.numpy as jnp
from flax import nnx


class LatentStatistics(nnx.Module):
    """`mean` and `second`, the published variance or standard deviation, of one shape."""

    def __init__(self, shape: tuple[int, ...], second: str, *, rngs: nnx.Rngs, dtype=jnp.float32):
        del rngs  # as every published network is made
        self.mean = nnx.Param(jnp.zeros(shape, dtype))
        setattr(self, second, nnx.Param(jnp.ones(shape, dtype)))
