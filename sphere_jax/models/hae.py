"""What HAE (2601.22904) puts in place of the patch embedding of its frozen ViT, and that ViT with
it. docs/systems/hae.md#stem."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.dc_ae import Decoder
from sphere_jax.models.dinov3 import DINOv3
from sphere_jax.models.imagenet import normalize
from sphere_jax.nn.dc_ae_blocks import NORMS, conv
from sphere_jax.nn.embeddings import patchify
from sphere_jax.nn.linear import Linear

SIZES = (7, 3, 3, 3)  # of the kernels; every convolution halves the grid


class ConvStem(nnx.Module):
    """Images (B, H, W, 3) to tokens (B, H / 16, W / 16, widths[-1]) in `dtype`, sides rounded up.

    Convolutions of stride 2 without bias, norm and SiLU between them: four, or fewer for smaller
    patches, by the number of `widths`. `norm` is a key of `nn.dc_ae_blocks.NORMS`; HAE's code has
    "sample_rms", one RMS a sample. Kernels start within +-1 / sqrt(fan_in).

    Raises:
      ValueError: more widths than four, or none.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (64, 128, 256, 1024),
        norm: str,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        if not 1 <= len(widths) <= len(SIZES):
            raise ValueError(f"a stem has 1 to {len(SIZES)} convolutions, not {len(widths)}")
        inputs = (3, *widths)
        self.convs = nnx.List(
            [
                conv(c, width, size=size, stride=2, bias=False, rngs=rngs, dtype=dtype)
                for c, width, size in zip(inputs, widths, SIZES, strict=False)
            ]
        )
        self.norms = nnx.List([NORMS[norm](width) for width in widths[:-1]])

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Maps "conv_1", "conv_2", "conv_3" behind norm and SiLU, and "tokens"."""
        x, maps = images, {}
        for n, norm in enumerate(self.norms):
            maps[f"conv_{n + 1}"] = x = jax.nn.silu(norm(self.convs[n](x)))
        return maps | {"tokens": self.convs[-1](x)}

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.features(images)["tokens"]


class PatchStem(nnx.Module):
    """The patch embedding of a ViT, to be trained: images (B, H, W, 3) to tokens (B, h, w, width).

    The stem that HAE's paper compares its own with.
    """

    def __init__(self, width: int, patch: int, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        self.patch_embedding = Linear(patch * patch * 3, width, rngs=rngs, dtype=dtype)
        self.patch = patch

    def __call__(self, images: jax.Array) -> jax.Array:
        batch, height, width = images.shape[:3]
        tokens = self.patch_embedding(patchify(images, self.patch))
        return tokens.reshape(batch, height // self.patch, width // self.patch, -1)


class HAE(nnx.Module):
    """Stem, ViT and decoder: images (B, H, W, 3) in [-1, 1] to their reconstructions."""

    def __init__(self, stem: nnx.Module, vit: DINOv3, decoder: Decoder):
        self.stem, self.vit, self.decoder = stem, vit, decoder

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.decoder(self.encode(images))

    def encode(self, images: jax.Array) -> jax.Array:
        """Latents (B, h, w, width): the patch tokens behind the last norm, float32."""
        embedded = self.stem(vit_input(images))
        return self.vit.encode(embedded).patches.reshape(embedded.shape)


def vit_input(images: jax.Array) -> jax.Array:
    """Images in [-1, 1] as ImageNet-normalised ones, which the stem sees as the ViT did (HAE does
    not say)."""
    return normalize((images + 1) / 2)
