"""The encoder and decoder of Sphere Encoder: two transformers with mixers where the sphere lies.

arXiv 2602.15030; docs/systems/sphere_encoder.md#architecture. The encoder's output is raw: putting
it on the sphere is the caller's, in float32.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.transformer import token_grid
from sphere_jax.nn.attention import Attention
from sphere_jax.nn.embeddings import LabelEmbedding, patchify, sincos_positions, unpatchify
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.mixer import Mixer
from sphere_jax.nn.mlp import SwiGLU, swiglu_hidden
from sphere_jax.nn.norms import RMSNorm
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.transformer_layers import Block, Head, Stack

SIZES = {  # depth, width, heads
    "small": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
    "xlarge": (28, 1152, 16),
    "huge": (32, 1280, 16),
    "giant": (40, 1664, 16),
}

standard_normal = nnx.initializers.normal(1.0)


def _pixel_xavier(axis: int) -> nnx.Initializer:
    """Xavier of gain 0.01 on a kernel as a matrix `(rows, everything else)`, with `axis` for rows.

    The released code gives PyTorch's xavier a view of the kernel from its first axis, so the fans
    are the sizes of that axis and of all others together, not those of a convolution.
    """

    def init(key, shape, dtype=jnp.float32):
        rows = shape[axis]
        fans = rows + math.prod(shape) // rows
        limit = 0.01 * math.sqrt(6.0 / fans)
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class _Body(nnx.Module):
    """Labels, positions, blocks and head: tokens (B, N, width) -> (B, N, features_out)."""

    def __init__(
        self,
        grid: tuple[int, int],
        features_out: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        compute_dtype: jnp.dtype,
        unroll: int | bool,
        remat: Remat,
    ):
        sincos_positions(grid, width)  # raises here, not at the first call
        norm, conditional = partial(RMSNorm, width), num_classes > 0

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width,
                norm=norm,
                attention=lambda rngs: Attention(
                    width, heads, rope_grid=grid, dtype=compute_dtype, rngs=rngs
                ),
                mlp=lambda rngs: SwiGLU(
                    width, swiglu_hidden(width), dtype=compute_dtype, rngs=rngs
                ),
                conditional=conditional,
                dtype=compute_dtype,
                rngs=rngs,
            )

        self.label = LabelEmbedding(num_classes, width, rngs=rngs) if conditional else None
        self.blocks = Stack(block, depth, unroll=unroll, remat=remat, rngs=rngs)
        self.head = Head(  # without classes the original's head is the linear alone
            width,
            features_out,
            norm=norm if conditional else None,
            conditional=conditional,
            dtype=compute_dtype,
            rngs=rngs,
        )
        self.grid, self.width = grid, width

    def __call__(self, x: jax.Array, labels: jax.Array | None) -> jax.Array:
        # Tokens between blocks are float32 whatever the compute dtype (docs/bf16.md).
        x = x.astype(jnp.float32) + jnp.asarray(sincos_positions(self.grid, self.width))[None]
        c = None if self.label is None else jax.nn.silu(self.label(labels))
        return self.head(self.blocks(x, c), c)


class Encoder(nnx.Module):
    """Images (B, H, W, C) in [-1, 1] and labels -> raw latents (B, h, w, d) float32.

    Labels are (B,) int32 in [0, num_classes] or mixtures (B, num_classes + 1); `num_classes=0`
    leaves them out. The latent of a fresh encoder is 0.

    Raises:
        ValueError: if `patch` does not divide the image, `heads` does not divide `width`, or the
            head dimension is not divisible by 4.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        mixer_depth: int = 4,
        compute_dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        grid, options = token_grid(image_shape, patch), dict(dtype=compute_dtype, rngs=rngs)
        # A p x p convolution of stride p, then a 1 x 1 convolution: both linear on patches.
        self.patches = Linear(patch * patch * image_shape[-1], width, bias=False, **options)
        self.mix = Linear(width, width, **options)
        self.body = _Body(
            grid, latent_channels, width, depth, heads, num_classes,
            compute_dtype=compute_dtype, unroll=unroll, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.mixer = Mixer(
            grid[0] * grid[1], latent_channels, mixer_depth, unroll=unroll, **options
        )
        self.patch = patch

    @property
    def fixed_table_size(self) -> int:
        """Scalars in the fixed position table, which published counts include
        (docs/systems/shared.md#parameter-counts)."""
        return self.body.grid[0] * self.body.grid[1] * self.body.width

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        x = self.mix(self.patches(patchify(images, self.patch)))
        z = self.mixer(self.body(x, labels)).astype(jnp.float32)
        return z.reshape(-1, *self.body.grid, z.shape[-1])


class Decoder(nnx.Module):
    """Latents (B, h, w, d) on the sphere and labels -> images (B, H, W, C) in (-1, 1), float32.

    `pixel_head`: "linear", patches then a 3x3 convolution; or "conv", 32 channels a token, a 3x3
    and a transposed convolution (CIFAR-10). Both pad by reflection and end in tanh. Arguments and
    errors as for `Encoder`; "conv" needs 2x2 tokens or more.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        mixer_depth: int = 4,
        pixel_head: str = "linear",
        compute_dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        grid, channels = token_grid(image_shape, patch), image_shape[-1]
        options = dict(init=standard_normal, dtype=compute_dtype, rngs=rngs)
        self.input = Linear(latent_channels, width, **options)
        self.mixer = Mixer(grid[0] * grid[1], width, mixer_depth, unroll=unroll, **options)
        heads_of = {"linear": LinearPixels, "conv": ConvPixels}
        if pixel_head not in heads_of:
            raise ValueError(f'pixel head must be "linear" or "conv", got {pixel_head!r}')
        self.pixels = heads_of[pixel_head](grid, patch, channels, dtype=compute_dtype, rngs=rngs)
        self.body = _Body(
            grid, self.pixels.features_in, width, depth, heads, num_classes,
            compute_dtype=compute_dtype, unroll=unroll, remat=remat, rngs=rngs,
        )  # fmt: skip

    @property
    def fixed_table_size(self) -> int:
        """Scalars in the fixed position table, which published counts include
        (docs/systems/shared.md#parameter-counts)."""
        return self.body.grid[0] * self.body.grid[1] * self.body.width

    def __call__(self, latents: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        x = latents.reshape(latents.shape[0], -1, latents.shape[-1])
        tokens = self.body(self.mixer(self.input(x)), labels)
        return jnp.tanh(self.pixels(tokens).astype(jnp.float32))


def _reflecting_conv(inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        inputs, outputs, (3, 3),
        padding="REFLECT", kernel_init=_pixel_xavier(3), dtype=dtype, rngs=rngs,
    )  # fmt: skip


class LinearPixels(nnx.Module):
    """Tokens of p p C pixels each, unfolded, then a 3x3 convolution."""

    def __init__(self, grid, patch: int, channels: int, *, dtype, rngs: nnx.Rngs):
        self.grid, self.patch = grid, patch
        self.features_in = patch * patch * channels
        self.conv = _reflecting_conv(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.conv(unpatchify(tokens, self.patch, self.grid))


class ConvPixels(nnx.Module):
    """Tokens of 32 channels, a 3x3 convolution, SiLU, and a transposed one of stride p."""

    features_in = 32

    def __init__(self, grid, patch: int, channels: int, *, dtype, rngs: nnx.Rngs):
        self.grid = grid
        self.conv = _reflecting_conv(self.features_in, self.features_in, dtype=dtype, rngs=rngs)
        # Kernel p + 2, stride p, and PyTorch's padding 1, which here is (p + 2) - 1 - 1 = p.
        self.up = nnx.ConvTranspose(
            self.features_in,
            channels,
            (patch + 2, patch + 2),
            strides=(patch, patch),
            padding=((patch, patch), (patch, patch)),
            kernel_init=_pixel_xavier(2),  # PyTorch's first axis: of its inputs here
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        grid = tokens.reshape(-1, *self.grid, self.features_in)
        return self.up(jax.nn.silu(self.conv(grid)))
