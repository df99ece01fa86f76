"""The image tower of SigLIP 2 (2502.14786): no class token, attention pooling over all tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.dino import DINO
from sphere_jax.nn.attention import attend
from sphere_jax.nn.linear import Linear, small_normal
from sphere_jax.nn.mlp import MLP
from sphere_jax.nn.norms import LayerNorm

# "So400m", the shape-optimised transformer of 2305.13035, as arguments of `SigLIP`.
KINDS = {
    name: dict(width=1152, depth=27, heads=16, hidden=4304, patch=16, grid=grid)
    for name, grid in (("siglip2_so400m16_256", 16), ("siglip2_so400m16_512", 32))
}


class AttentionPool(nnx.Module):
    """One learned query over the tokens, then `y += mlp(norm(y))`: (B, N, width) -> (B, width).

    The columns of the qkv kernel are q | k | v.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, rngs: nnx.Rngs, eps: float, dtype: jnp.dtype
    ):
        self.query = nnx.Param(small_normal(rngs.params(), (1, width), jnp.float32))
        self.qkv = Linear(width, 3 * width, rngs=rngs, dtype=dtype)
        self.projection = Linear(width, width, rngs=rngs, dtype=dtype)
        self.norm = LayerNorm(width, eps=eps)
        self.mlp = MLP(width, hidden, rngs=rngs, dtype=dtype)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, _, width = x.shape
        dtype = self.qkv.dtype
        kernel, bias = self.qkv.kernel[...].astype(dtype), self.qkv.bias[...].astype(dtype)
        x = x.astype(dtype)
        query = self.query[...].astype(dtype) @ kernel[:, :width] + bias[:width][None]
        keys_values = x @ kernel[:, width:] + bias[width:][None, None]
        q, k, v = (
            part.reshape(part.shape[0], -1, self.heads, width // self.heads)
            for part in (query, *jnp.split(keys_values, 2, axis=-1))
        )
        q = jnp.broadcast_to(q, (batch, *q.shape[1:]))
        y = self.projection(attend(q, k, v).reshape(batch, width)).astype(jnp.float32)
        return y + self.mlp(self.norm(y)).astype(jnp.float32)


class SigLIP(DINO):
    """A vision transformer whose `pooled` tokens are the embedding of an image.

    Called with images (B, H, W, 3) in [-1, 1]. On another grid than `grid` x `grid` the positions
    are resized as in timm. GELU is its tanh approximation.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        patch: int,
        grid: int,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        super().__init__(
            width,
            depth,
            heads,
            patch,
            grid,
            layer_scale=False,
            mlp_ratio=hidden / width,
            offset=0.0,
            antialias=True,
            exact_gelu=False,
            class_token=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.pool = AttentionPool(width, heads, hidden, eps=1e-6, dtype=dtype, rngs=rngs)

    def pooled(self, x: jax.Array) -> jax.Array:
        """Images (B, H, W, 3) in [-1, 1], sides of any multiple of the patch, to (B, width)."""
        return self.pool(self(x).patches)
