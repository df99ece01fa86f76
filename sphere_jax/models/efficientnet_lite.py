"""EfficientNet-Lite, the ImageNet classifier of 4.65 million parameters for small processors.

EfficientNet (1905.11946) without squeeze-and-excite and with relu6. A feature network that costs a
tenth of Inception's arithmetic.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.batch_norm import BatchNorm
from sphere_jax.nn.depthwise import depthwise
from sphere_jax.nn.linear import Linear

STEM, HEAD = 32, 1280  # channels of the first convolution and of the last, whatever the size


class Stage(NamedTuple):
    """Blocks of one kernel and width; the first of them has the stride."""

    depth: int
    kernel: int
    stride: int
    expansion: int  # of the channels between its 1x1 convolutions
    width: int


SIZES = {
    "lite0": (
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(2, 5, 2, 6, 40),
        Stage(3, 3, 2, 6, 80),
        Stage(3, 5, 1, 6, 112),
        Stage(4, 5, 2, 6, 192),
        Stage(1, 3, 1, 6, 320),
    )
}


class Depthwise(nnx.Module):
    """A convolution of each channel with its own kernel, without bias, padded as TensorFlow does.

    (B, h, w, width) -> (B, ceil(h / stride), ceil(w / stride), width) in `dtype`.
    """

    def __init__(
        self, width: int, size: int, stride: int, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32
    ):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (size, size, 1, width), jnp.float32))
        self.stride, self.dtype = stride, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return depthwise(x.astype(self.dtype), self.kernel[...], self.stride)


class Block(nnx.Module):
    """`project(relu6(depthwise(relu6(expand(x)))))`, a norm after each, and x added where it fits.

    (B, h, w, inputs) -> (B, ceil(h / stride), ceil(w / stride), outputs). With an expansion of
    one there is no `expand`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        expansion: int,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        inner = expansion * inputs
        linear = partial(Linear, rngs=rngs, bias=False, dtype=dtype)
        self.expand = linear(inputs, inner) if expansion > 1 else None
        self.expand_norm = BatchNorm(inner) if expansion > 1 else None
        self.depthwise = Depthwise(inner, kernel, stride, rngs=rngs, dtype=dtype)
        self.depthwise_norm = BatchNorm(inner)
        self.project = linear(inner, outputs)
        self.project_norm = BatchNorm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        h = x
        if self.expand is not None:
            h = nnx.relu6(self.expand_norm(self.expand(h)))
        h = nnx.relu6(self.depthwise_norm(self.depthwise(h)))
        h = self.project_norm(self.project(h))
        return x + h if self.residual else h


class EfficientNetLite(nnx.Module):
    """A strided convolution, blocks in stages (`SIZES`), a last 1x1 convolution, a classifier.

    `dtype` is that of the products and of the maps; parameters, the average over places and the
    classifier are float32. The input is what `efficientnet_input` makes, of any size; it was
    trained at 224x224.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        num_classes: int = 1000,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.stages = stages
        self.stem = nnx.Conv(
            3, STEM, (3, 3), strides=2, padding="SAME", use_bias=False, dtype=dtype, rngs=rngs
        )
        self.stem_norm = BatchNorm(STEM)
        blocks, width = [], STEM
        for stage in stages:
            for n in range(stage.depth):
                stride = 1 if n else stage.stride
                sizes = (width, stage.width, stage.kernel, stride, stage.expansion)
                blocks.append(Block(*sizes, rngs=rngs, dtype=dtype))
                width = stage.width
        self.blocks = nnx.List(blocks)
        self.head = Linear(width, HEAD, rngs=rngs, bias=False, dtype=dtype)
        self.head_norm = BatchNorm(HEAD)
        self.classifier = Linear(HEAD, num_classes, rngs=rngs)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """(B, H, W, 3) as `efficientnet_input` makes them, to a dictionary of

        "block_0" ...: the output of every block in `dtype`: for lite0 at 224 pixels from
          (B, 112, 112, 16) to (B, 7, 7, 320) of "block_15";
        "pooled": (B, 1280) >= 0, the average over the last map;
        "logits": (B, num_classes).
        """
        found = {}
        x = nnx.relu6(self.stem_norm(self.stem(x)))
        for n, block in enumerate(self.blocks):
            x = found[f"block_{n}"] = block(x)
        x = nnx.relu6(self.head_norm(self.head(x)))
        found["pooled"] = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        found["logits"] = self.classifier(found["pooled"])
        return found

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) as `efficientnet_input` makes them, to logits (B, num_classes), float32."""
        return self.features(x)["logits"]


def efficientnet_input(images: jax.Array) -> jax.Array:
    """(RGB - 127) / 128, float32, of images (B, H, W, 3): uint8, or float in [-1, 1]."""
    x = images.astype(jnp.float32)
    if jnp.issubdtype(images.dtype, jnp.floating):
        x = (x + 1) * 127.5
    return (x - 127) / 128
