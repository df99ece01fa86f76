"""LightningDiT, as used by HAE, RJF and RAE. methods.md D.6, K.

Without time it is also the network of B: `time_embedding=None, qk_norm=True, gate_bias=False`.
"""

from functools import partial

import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.transformer import DiffusionTransformer, token_grid
from sphere_jax.nn.attention import Attention
from sphere_jax.nn.mlp import SwiGLU, swiglu_hidden
from sphere_jax.nn.norms import RMSNorm

SIZES = {  # depth, width, heads
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}


class LightningDiT(DiffusionTransformer):
    """Affine RMSNorm, 2-D RoPE, SwiGLU and optional QK-norm in place of SiT's choices.

    Called with z (B, h, w, d), t (B,) and labels (B,), it returns a float32 field (B, h, w, d).
    `time_embedding` is "sinusoid" (the original), "fourier" (RAE, RJF, HAE) or None (no time
    input). `gate_bias` puts biases on the first linear of SwiGLU.

    Raises:
        ValueError: if `patch` does not divide h and w, `heads` does not divide `width`, the head
            dimension is not divisible by 4 with `rope`, or `time_embedding` is unknown.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        mlp_ratio: float = 4,
        qk_norm: bool = False,
        rope: bool = True,
        gate_bias: bool = True,
        time_embedding: str | None = "sinusoid",
        compute_dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: bool = False,
    ):
        hidden = swiglu_hidden(width, mlp_ratio)
        grid = token_grid(latent_shape, patch) if rope else None
        super().__init__(
            latent_shape,
            patch,
            width,
            depth,
            num_classes,
            norm=partial(RMSNorm, width),
            attention=lambda rngs: Attention(
                width, heads, qk_norm=qk_norm, rope_grid=grid, dtype=compute_dtype, rngs=rngs
            ),
            mlp=lambda rngs: SwiGLU(
                width, hidden, gate_bias=gate_bias, dtype=compute_dtype, rngs=rngs
            ),
            time_embedding=time_embedding,
            compute_dtype=compute_dtype,
            unroll=unroll,
            remat=remat,
            rngs=rngs,
        )
