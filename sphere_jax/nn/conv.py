"""Convolutional blocks of the autoencoders, NHWC."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, FeatureMaps


def conv3x3(inputs: int, outputs: int, *, rngs: nnx.Rngs, stride: int = 1) -> nnx.Conv:
    """(B, h, w, inputs) -> (B, h / stride, w / stride, outputs), zero-padded."""
    return nnx.Conv(inputs, outputs, (3, 3), strides=stride, padding=1, rngs=rngs)


def group_norm(channels: int, *, rngs: nnx.Rngs, largest: int = 32) -> nnx.GroupNorm:
    """GroupNorm with up to `largest` groups of at least 4 channels; statistics in float32."""
    groups = next(g for g in range(min(largest, max(channels // 4, 1)), 0, -1) if channels % g == 0)
    return nnx.GroupNorm(channels, num_groups=groups, epsilon=1e-6, rngs=rngs)


class ResBlock(nnx.Module):
    """`x + conv(silu(norm(conv(silu(norm(x))))))`: (B, h, w, inputs) -> (B, h, w, outputs).

    The shortcut is a 1x1 convolution if `inputs` and `outputs` differ.
    """

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.norm1 = group_norm(inputs, rngs=rngs)
        self.conv1 = conv3x3(inputs, outputs, rngs=rngs)
        self.norm2 = group_norm(outputs, rngs=rngs)
        self.conv2 = conv3x3(outputs, outputs, rngs=rngs)
        self.shortcut = nnx.Conv(inputs, outputs, (1, 1), rngs=rngs) if inputs != outputs else None

    def __call__(self, x: FeatureMaps) -> Float[AnyArray, "batch h w outputs"]:
        h = self.conv1(nnx.silu(self.norm1(x)))
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class Upsample(nnx.Module):
    """Nearest neighbour, then a 3x3 convolution: (B, h, w, inputs) -> (B, 2 h, 2 w, outputs)."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv = conv3x3(inputs, outputs, rngs=rngs)

    def __call__(self, x: FeatureMaps) -> Float[AnyArray, "batch 2*h 2*w outputs"]:
        return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))
