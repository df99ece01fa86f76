"""Blocks of the deep compression autoencoder (DC-AE, 2410.10733), NHWC. arXiv 2601.22904, Table 8;
docs/systems/hae.md#decoder.

Every branch ends in a norm and is added to its input. Parameters are float32; products and the
residual stream are in `dtype`, statistics and linear attention in float32. Kernels are initialised
uniformly within +-1 / sqrt(fan_in), as in PyTorch, biases at zero.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, FeatureMaps, Heads, Hidden
from sphere_jax.nn.batch_norm import BatchNorm
from sphere_jax.nn.depthwise import depthwise
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.norms import per_channel
from sphere_jax.nn.precision import exact_products

fan_in_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
ACTIVATIONS = {"silu": jax.nn.silu, "relu": jax.nn.relu}


class TRMS2d(nnx.Module):
    """RMS norm over the channels of each pixel, with scale and bias: (..., C) -> (..., C)."""

    axes = (-1,)

    def __init__(self, width: int, *, eps: float = 1e-5, bias: bool = True):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32)) if bias else None
        self.eps = eps

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(self.axes, keepdims=True) + self.eps)
        y = y * per_channel(self.scale[...], y.ndim)
        if self.bias is not None:
            y = y + per_channel(self.bias[...], y.ndim)
        return y.astype(x.dtype)


class SampleRMS(TRMS2d):
    """RMS norm over all of a sample, (B, h, w, C) -> (B, h, w, C), with a scale for each channel.

    The code of HAE has it in place of TRMS2d: all pixels of an image share one RMS. No bias.
    """

    axes = (1, 2, 3)

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6, bias=False)


def identity(x: FeatureMaps) -> FeatureMaps:
    """x itself, (B, h, w, C)."""
    return x


NORMS = {
    "trms2d": TRMS2d,
    "sample_rms": SampleRMS,
    "batch": partial(BatchNorm, eps=1e-5),
    "none": lambda width: identity,
}


def conv(
    inputs: int,
    outputs: int,
    *,
    size: int = 3,
    stride: int = 1,
    bias: bool = True,
    rngs: nnx.Rngs,
    dtype: DTypeLike,
) -> nnx.Conv:
    """A zero-padded convolution of odd size: (B, h, w, inputs) -> (B, h / stride, .., outputs)."""
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=bias,
        kernel_init=fan_in_uniform,
        dtype=dtype,
        rngs=rngs,
    )


class ResBlock(nnx.Module):
    """`x + norm(conv(activation(conv(x))))`: (B, h, w, width) -> (B, h, w, width).

    `norm` is a key of `NORMS`, `activation` of `ACTIVATIONS`.
    """

    def __init__(self, width: int, *, norm: str, activation: str, rngs: nnx.Rngs, dtype: DTypeLike):
        self.conv1 = conv(width, width, rngs=rngs, dtype=dtype)
        self.conv2 = conv(width, width, bias=False, rngs=rngs, dtype=dtype)
        self.norm = NORMS[norm](width)
        self.activation = activation

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        return x + self.norm(self.conv2(ACTIVATIONS[self.activation](self.conv1(x))))


class Depthwise(nnx.Module):
    """A convolution of each channel with a kernel of size x size: (B, h, w, C) -> (B, h, w, C)."""

    def __init__(self, width: int, size: int, *, bias: bool, rngs: nnx.Rngs):
        shape = (size, size, 1, width)
        self.kernel = nnx.Param(fan_in_uniform(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32)) if bias else None

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        y = depthwise(x, self.kernel[...])
        if self.bias is not None:
            y = y + per_channel(self.bias[...], y.ndim)
        return y.astype(x.dtype)


class Aggregation(nnx.Module):
    """Queries, keys and values of a neighbourhood: (B, h, w, width) -> (B, h, w, width).

    A depthwise convolution of size x size, then a product within each group of `group` channels.
    """

    def __init__(self, width: int, size: int, group: int, *, rngs: nnx.Rngs, dtype: DTypeLike):
        self.depthwise = Depthwise(width, size, bias=False, rngs=rngs)
        init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=0)
        self.mix = nnx.Param(init(rngs.params(), (width // group, group, group), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        mix = self.mix[...].astype(self.dtype)
        y = rearrange(self.depthwise(x), "b h w (g c) -> b h w g c", g=mix.shape[0])
        return jnp.einsum("bhwgc,gcd->bhwgd", y, mix).reshape(x.shape)


def relu_linear_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """`sum_n (k_n . q) v_n / (sum_n k_n . q + 1e-15)` of relu(q), relu(k); all (B, N, heads, d).

    In float32. For N <= d the original code sums in another order, with N x N weights: the same
    function at about the same cost.
    """
    q, k, v = (x.astype(jnp.float32) for x in (jax.nn.relu(q), jax.nn.relu(k), v))
    with exact_products():
        values = jnp.einsum("bnhd,bhde->bnhe", q, jnp.einsum("bnhd,bnhe->bhde", k, v))
        total = jnp.einsum("bnhd,bhd->bnh", q, k.sum(axis=1))
    return values / (total[..., None] + 1e-15)


class LiteMLA(nnx.Module):
    """Multi-scale linear attention on any grid: (B, h, w, width) -> (B, h, w, width).

    Each of `scales`, odd kernel sizes, adds the same number of heads, whose inputs pass through an
    `Aggregation`. The columns of the qkv kernel are head by head, each q | k | v.

    Raises:
        ValueError: if `head_dim` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        *,
        scales: Sequence[int] = (),
        norm: str,
        head_dim: int = 32,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        if width % head_dim:
            raise ValueError(f"width {width} is not divisible by the head dimension {head_dim}")
        options = dict(bias=False, init=fan_in_uniform, rngs=rngs, dtype=dtype)
        self.qkv = Linear(width, 3 * width, **options)
        self.scales = nnx.List(
            [Aggregation(3 * width, size, head_dim, rngs=rngs, dtype=dtype) for size in scales]
        )
        self.projection = Linear(width * (1 + len(scales)), width, **options)
        self.norm = NORMS[norm](width)
        self.head_dim = head_dim

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        qkv = self.qkv(x)
        qkv = jnp.concatenate([qkv, *(scale(qkv) for scale in self.scales)], axis=-1)
        heads = rearrange(qkv, "b h w (n three d) -> three b (h w) n d", three=3, d=self.head_dim)
        mixed = relu_linear_attention(*heads).astype(qkv.dtype)
        return self.norm(self.projection(mixed.reshape(*x.shape[:3], -1)))


class GLUMBConv(nnx.Module):
    """Expand to value | gate of 4 width each, SiLU, depthwise 3x3, `value silu(gate)`, contract.

    (B, h, w, width) -> (B, h, w, width).
    """

    def __init__(self, width: int, *, norm: str, rngs: nnx.Rngs, dtype: DTypeLike):
        options = dict(init=fan_in_uniform, rngs=rngs, dtype=dtype)
        self.expand = Linear(width, 8 * width, **options)
        self.depthwise = Depthwise(8 * width, 3, bias=True, rngs=rngs)
        self.contract = Linear(4 * width, width, bias=False, **options)
        self.norm = NORMS[norm](width)

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        value, gate = jnp.split(self.depthwise(jax.nn.silu(self.expand(x))), 2, axis=-1)
        return self.norm(self.contract(value * jax.nn.silu(gate)))


class EViTBlock(nnx.Module):
    """EViT-GLU: `x += LiteMLA(x)`, `x += GLUMBConv(x)`: (B, h, w, width) -> (B, h, w, width)."""

    def __init__(
        self,
        width: int,
        *,
        scales: Sequence[int] = (),
        norm: str,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        self.attention = LiteMLA(width, scales=scales, norm=norm, rngs=rngs, dtype=dtype)
        self.glu = GLUMBConv(width, norm=norm, rngs=rngs, dtype=dtype)

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        x = x + self.attention(x)
        return x + self.glu(x)


def duplicate(x: Hidden, channels: int) -> Float[AnyArray, "*batch {channels}"]:
    """Each channel repeated, next to itself, to `channels` in all: (..., C) -> (..., channels).

    Raises:
        ValueError: if C does not divide `channels`.
    """
    if channels % x.shape[-1]:
        raise ValueError(f"{x.shape[-1]} channels cannot be repeated to {channels}")
    return jnp.repeat(x, channels // x.shape[-1], axis=-1)


def average(x: Hidden, channels: int) -> Float[AnyArray, "*batch {channels}"]:
    """Means of groups of neighbouring channels: (..., C) -> (..., channels).

    Raises:
        ValueError: if `channels` does not divide C.
    """
    if x.shape[-1] % channels:
        raise ValueError(f"{x.shape[-1]} channels cannot be averaged to {channels}")
    return x.reshape(*x.shape[:-1], channels, -1).mean(axis=-1)


def shuffle(x: FeatureMaps) -> Float[AnyArray, "batch 2*h 2*w width//4"]:
    """Four channels to the pixels of a 2x2 square: (B, h, w, 4 C) -> (B, 2 h, 2 w, C)."""
    return rearrange(x, "b h w (c p q) -> b (h p) (w q) c", p=2, q=2)


def unshuffle(x: FeatureMaps) -> Float[AnyArray, "batch h//2 w//2 4*width"]:
    """The inverse of `shuffle`: (B, 2 h, 2 w, C) -> (B, h, w, 4 C)."""
    return rearrange(x, "b (h p) (w q) c -> b h w (c p q)", p=2, q=2)


class Upsample(nnx.Module):
    """(B, h, w, inputs) -> (B, 2 h, 2 w, outputs); the shortcut adds the shuffled channels.

    `kind` "interpolate" is nearest neighbour and a convolution, "pixel_shuffle" a convolution to
    4 x outputs and a shuffle.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kind: str,
        shortcut: bool = True,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        factor = {"interpolate": 1, "pixel_shuffle": 4}[kind]
        self.conv = conv(inputs, factor * outputs, rngs=rngs, dtype=dtype)
        self.kind, self.shortcut, self.outputs = kind, shortcut, outputs

    def __call__(
        self, x: Float[AnyArray, "batch h w c"]
    ) -> Float[AnyArray, "batch 2*h 2*w {self.outputs}"]:
        if self.kind == "interpolate":
            y = self.conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))
        else:
            y = shuffle(self.conv(x))
        return y + shuffle(duplicate(x, 4 * self.outputs)) if self.shortcut else y


class Downsample(nnx.Module):
    """(B, 2 h, 2 w, inputs) -> (B, h, w, outputs); the shortcut averages unshuffled channels.

    `kind` "conv" is a convolution of stride 2, "pixel_unshuffle" one to outputs / 4, unshuffled.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kind: str,
        shortcut: bool = True,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        stride, factor = {"conv": (2, 1), "pixel_unshuffle": (1, 4)}[kind]
        self.conv = conv(inputs, outputs // factor, stride=stride, rngs=rngs, dtype=dtype)
        self.kind, self.shortcut, self.outputs = kind, shortcut, outputs

    def __call__(
        self, x: Float[AnyArray, "batch h w c"]
    ) -> Float[AnyArray, "batch h//2 w//2 {self.outputs}"]:
        y = unshuffle(self.conv(x)) if self.kind == "pixel_unshuffle" else self.conv(x)
        return y + average(unshuffle(x), self.outputs) if self.shortcut else y
