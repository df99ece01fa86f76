"""Multi-head self-attention over tokens."""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, Heads, Tokens
from sphere_jax.distribution.placement import on_each_device, platform
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.norms import RMSNorm
from sphere_jax.nn.rope import axial_angles, rotate

Keys = Float[AnyArray, "batch keys heads head_dim"]


def attend(q: Heads, k: Keys, v: Keys) -> Heads:
    """`softmax(q k^T / sqrt(head_dim)) v`; q (B, N, heads, head_dim), k and v (B, M, heads,
    head_dim); softmax in float32.

    On an NVIDIA GPU by cuDNN's flash attention, on a TPU from 1,024 tokens by JAX's splash kernel,
    where these take the operands: no weights in memory.
    """
    target = platform()
    if target == "cpu":
        return _attend_heads_first(q, k, v)
    if target == "tpu" and fits_splash(q, k):
        return on_each_device(attend_by_splash, q, k, v)
    cudnn = target == "gpu" and _has_cudnn() and fits_cudnn(q)
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn" if cudnn else None)


def fits_cudnn(q: Heads) -> bool:
    """Whether cuDNN's attention takes such operands: 16 bits, and heads of a multiple of 8 up to
    128 on every GPU that has it."""
    return q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128


def fits_splash(q: Heads, k: Keys) -> bool:
    """Whether splash attention takes such operands and gains by them: 16 bits, heads up to 128, and
    multiples of 128 tokens, 1,024 or more. Below, the weights are small and its layouts cost as
    much (docs/performance.md)."""
    tokens, keys = q.shape[1], k.shape[1]
    small = q.dtype == jnp.bfloat16 and q.shape[-1] <= 128
    return small and min(tokens, keys) >= 1024 and tokens % 128 == 0 and keys % 128 == 0


def attend_by_splash(q: Heads, k: Keys, v: Keys, *, interpret: bool = False) -> Heads:
    """`attend` by the splash kernel that comes with JAX, on one TPU; `interpret`: on any device,
    slowly. Queries are scaled before they are rounded."""
    q = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
    return _splash(interpret, *(x.transpose(0, 2, 1, 3) for x in (q, k, v))).transpose(0, 2, 1, 3)


# The kernel refuses JAX's option for more precise products, which means products of float32, and
# asks for it in its backward pass again.
_of_16_bits = partial(jax.default_matmul_precision, "default")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _splash(interpret, q, k, v):
    with _of_16_bits():
        return jax.vmap(_splash_kernel(q.shape, k.shape, interpret))(q, k, v)


def _splash_forward(interpret, q, k, v):
    with _of_16_bits():
        return jax.vjp(jax.vmap(_splash_kernel(q.shape, k.shape, interpret)), q, k, v)


def _splash_backward(interpret, backward, gradient):
    with _of_16_bits():
        return backward(gradient)


_splash.defvjp(_splash_forward, _splash_backward)


def _splash_kernel(q: tuple[int, ...], k: tuple[int, ...], interpret: bool) -> Callable:
    """For arrays (heads, tokens, head_dim) of one sample; q and k are shapes of a batch."""
    # Not at the top: Pallas takes half a second to import, and few programs have so many tokens.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    heads, tokens, keys = q[1], q[2], k[2]
    rows, columns = math.gcd(tokens, 512), math.gcd(keys, 512)
    # The gradient of q is a sum over blocks of keys, each of which is kept: few large blocks.
    sizes = kernels.BlockSizes(
        block_q=rows,
        block_kv=columns,
        block_q_dkv=rows,
        block_kv_dkv=math.gcd(keys, 1024),
        block_kv_dkv_compute=columns,
        use_fused_bwd_kernel=True,
    )
    return kernels.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((tokens, keys))] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


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
        self.projection = Linear(width, width, rngs=rngs, dtype=dtype, split="input")
        self.q_norm = RMSNorm(width // heads, eps=eps) if qk_norm else None
        self.k_norm = RMSNorm(width // heads, eps=eps) if qk_norm else None
        if rope_grid is not None:
            axial_angles(rope_grid, width // heads)  # raises here, not at the first call
        self.heads = heads
        self.rope_grid = rope_grid

    def __call__(self, x: Tokens) -> Tokens:
        q, k, v = self.qkv.by_heads(x, 3, self.heads)
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope_grid is not None:
            angles = axial_angles(self.rope_grid, q.shape[-1])
            q, k = rotate(q, angles), rotate(k, angles)
        return self.projection.of_heads(attend(q, k, v))
