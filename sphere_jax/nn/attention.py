"""Multi-head self-attention over tokens."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, Heads, Tokens
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.norms import RMSNorm
from sphere_jax.nn.rope import axial_angles, rotate

Keys = Float[AnyArray, "batch keys heads head_dim"]


def attend(q: Heads, k: Keys, v: Keys) -> Heads:
    """`softmax(q k^T / sqrt(head_dim)) v`; q (B, N, heads, head_dim), k and v (B, M, heads,
    head_dim); softmax in float32.

    On an NVIDIA GPU by cuDNN's flash attention where it takes the operands: no weights in memory.
    """
    plain, kernels = jax.nn.dot_product_attention, {"cpu": _attend_heads_first}
    if _has_cudnn() and fits_cudnn(q):
        kernels["cuda"] = partial(plain, implementation="cudnn")
    return jax.lax.platform_dependent(q, k, v, default=lambda q, k, v: plain(q, k, v), **kernels)


def fits_cudnn(q: Heads) -> bool:
    """Whether cuDNN's attention takes such operands: 16 bits, and heads of a multiple of 8 up to
    128 on every GPU that has it."""
    return q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128


@lru_cache
def _has_cudnn() -> bool:
    """Asked when a program is traced, because JAX refuses the kernel there without it."""
    if jax.default_backend() != "gpu":
        return False
    device = jax.local_devices()[0]
    capable = float(getattr(device, "compute_capability", None) or 0.0) >= 8.0
    return capable and "cuda" in device.client.platform_version.lower()


def _attend_heads_first(q: Heads, k: Keys, v: Keys) -> Heads:
    """`attend` with the heads next to the batch, where XLA on CPU runs the batched matmuls and
    their gradients in about three quarters of the time (docs/performance.md)."""
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v).transpose(0, 2, 1, 3)


class Attention(nnx.Module):
    """Self-attention, (B, N, width) -> (B, N, width), with biases on qkv and projection.

    The columns of the fused qkv kernel are q | k | v, each of them head by head. `qk_norm` puts an
    affine RMSNorm on every head of q and k; `rope_grid` (h, w) then rotates them by token position.

    Raises:
        ValueError: if `heads` does not divide `width`, or with RoPE 4 the head dimension.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        qk_norm: bool = False,
        rope_grid: tuple[int, int] | None = None,
        eps: float = 1e-6,
        dtype: DTypeLike = jnp.float32,
    ):
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        self.qkv = Linear(width, 3 * width, rngs=rngs, dtype=dtype)
        self.projection = Linear(width, width, rngs=rngs, dtype=dtype)
        self.q_norm = RMSNorm(width // heads, eps=eps) if qk_norm else None
        self.k_norm = RMSNorm(width // heads, eps=eps) if qk_norm else None
        if rope_grid is not None:
            axial_angles(rope_grid, width // heads)  # raises here, not at the first call
        self.heads = heads
        self.rope_grid = rope_grid

    def __call__(self, x: Tokens) -> Tokens:
        batch, tokens, width = x.shape
        head_dim = width // self.heads
        q, k, v = (
            part.reshape(batch, tokens, self.heads, head_dim)
            for part in jnp.split(self.qkv(x), 3, axis=-1)
        )
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope_grid is not None:
            angles = axial_angles(self.rope_grid, head_dim)
            q, k = rotate(q, angles), rotate(k, angles)
        return self.projection(attend(q, k, v).reshape(batch, tokens, width))
