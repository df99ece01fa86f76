"""ConvNeXt (2201.03545) and ConvNeXt V2 (2301.00808), the ImageNet classifiers."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.depthwise import depthwise
from sphere_jax.nn.linear import Linear, small_normal
from sphere_jax.nn.norms import LayerNorm, per_channel
from sphere_jax.nn.transformer_layers import Stack

# Blocks and channels of the four stages.
SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}

# Of RGB in [0, 1], what classifiers of ImageNet are fed with: (x - mean) / std.


class Depthwise(nnx.Module):
    """A 7x7 convolution of each channel with its own kernel, zero-padded, and a bias."""

    def __init__(self, width: int, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        self.kernel = nnx.Param(small_normal(rngs.params(), (7, 7, 1, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, h, w, width) -> (B, h, w, width) in `dtype`."""
        y = depthwise(x.astype(self.dtype), self.kernel[...])
        return y + per_channel(self.bias[...].astype(self.dtype), y.ndim)


class GlobalResponseNorm(nnx.Module):
    """`x + scale * x * size / mean(size) + bias`, `size` the norm of a channel over all places:
    (B, h, w, C) to the same, in the dtype of x."""

    def __init__(self, channels: int, *, eps: float = 1e-6):
        self.scale = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        size = jnp.sqrt(jnp.square(y).sum((1, 2), keepdims=True))
        share = size / (size.mean(-1, keepdims=True) + self.eps)
        scale, bias = (per_channel(v[...], y.ndim) for v in (self.scale, self.bias))
        return (y + (scale * share * y + bias)).astype(x.dtype)


class Block(nnx.Module):
    """`x + scale * contract(gelu(expand(norm(depthwise(x)))))`, (B, h, w, width) to the same.

    With `grn` (V2) there is no scale, and a `GlobalResponseNorm` before the contraction.
    """

    def __init__(
        self, width: int, *, rngs: nnx.Rngs, grn: bool = False, dtype: jnp.dtype = jnp.float32
    ):
        self.depthwise = Depthwise(width, rngs=rngs, dtype=dtype)
        self.norm = LayerNorm(width)
        self.expand = Linear(width, 4 * width, rngs=rngs, dtype=dtype)
        self.contract = Linear(4 * width, width, rngs=rngs, dtype=dtype)
        self.grn = GlobalResponseNorm(4 * width) if grn else None
        self.scale = None if grn else nnx.Param(jnp.full((width,), 1e-6, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.expand(self.norm(self.depthwise(x)))
        h = nnx.gelu(h, approximate=False)
        h = self.contract(h if self.grn is None else self.grn(h))
        if self.scale is None:
            return x + h
        return x + h * per_channel(self.scale[...].astype(h.dtype), h.ndim)


class ConvNeXt(nnx.Module):
    """Stages of blocks at 1/4, 1/8, 1/16 and 1/32 of the image, then a linear classifier.

    `depths` and `widths` are the blocks and channels of the stages (`SIZES`). `dtype` is that of
    the products and of the residual stream; parameters and the classifier are float32. The blocks
    of a stage are stacked on a depth axis and scanned. No stochastic depth: it is used frozen.
    `grn` makes it ConvNeXt V2.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        num_classes: int = 1000,
        *,
        rngs: nnx.Rngs,
        grn: bool = False,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.depths, self.grn = depths, grn
        self.smallest_side = 4 * 2 ** (len(depths) - 1)  # one pixel is left in the last stage
        convs, norms, stages, channels = [], [], [], 3
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            factor = 2 if stage else 4
            convs.append(
                nnx.Conv(
                    channels,
                    width,
                    (factor, factor),
                    strides=factor,
                    padding="VALID",
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            norms.append(LayerNorm(channels if stage else width))
            make = partial(Block, width, grn=grn, dtype=dtype)
            stages.append(Stack(lambda rngs, make=make: make(rngs=rngs), depth, rngs=rngs))
            channels = width
        self.convs, self.norms, self.stages = map(nnx.List, (convs, norms, stages))
        self.norm = LayerNorm(channels)
        self.head = Linear(channels, num_classes, rngs=rngs)

    def features(self, x: jax.Array) -> list[jax.Array]:
        """ImageNet-normalised images (B, H, W, 3) to one map a stage.

        (B, H / 4, W / 4, widths[0]), (B, H / 8, W / 8, widths[1]) ..., sides rounded down, in
        `dtype`.

        Raises:
          ValueError: a side of less than 32 pixels, with four stages.
        """
        if min(x.shape[1:3]) < self.smallest_side:
            raise ValueError(
                f"ConvNeXt needs sides of at least {self.smallest_side} pixels, "
                f"not {x.shape[1]}x{x.shape[2]}."
            )
        maps = []
        for conv, norm, stage in zip(self.convs, self.norms, self.stages, strict=True):
            x = conv(norm(x)) if maps else norm(conv(x))  # the stem's norm comes after it
            x = stage(x)
            maps.append(x)
        return maps

    def __call__(self, x: jax.Array) -> jax.Array:
        """ImageNet-normalised images (B, H, W, 3) to logits (B, num_classes), float32."""
        pooled = jnp.mean(self.features(x)[-1].astype(jnp.float32), axis=(1, 2))
        return self.head(self.norm(pooled))
