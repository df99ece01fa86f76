"""A small convolutional variational autoencoder that trains in a minute on a laptop.

Same plan as the Stable Diffusion family (residual GroupNorm blocks, strided convolutions down,
nearest neighbour up), without attention, behind a pixel fold that makes the first level cheap.
"""

import jax
from einops import rearrange
from flax import nnx

from sphere_jax.nn.conv import ResBlock, Upsample, conv3x3, group_norm


class Encoder(nnx.Module):
    """Images (B, H, W, C) in [-1, 1] to mean and log variance (B, h, w, 2 d).

    `h = H / (patch 2^(levels - 1))`; `widths` has one entry a level.
    """

    def __init__(self, channels, latent_channels, *, patch, widths, blocks, rngs: nnx.Rngs):
        self.patch = patch
        self.stem = conv3x3(channels * patch**2, widths[0], rngs=rngs)
        layers, width = [], widths[0]
        for level, next_width in enumerate(widths):
            if level:
                layers.append(conv3x3(width, next_width, stride=2, rngs=rngs))
            width = next_width
            layers += [ResBlock(width, width, rngs=rngs) for _ in range(blocks)]
        self.layers = nnx.List(layers)
        self.norm = group_norm(width, rngs=rngs)
        self.head = conv3x3(width, 2 * latent_channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        p = self.patch
        x = self.stem(rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=p, q=p))
        for layer in self.layers:
            x = layer(x)
        return self.head(nnx.silu(self.norm(x)))


class Decoder(nnx.Module):
    """Latents (B, h, w, d) to images (B, H, W, C), unbounded (callers clip)."""

    def __init__(self, channels, latent_channels, *, patch, widths, blocks, rngs: nnx.Rngs):
        self.patch = patch
        width = widths[-1]
        self.stem = conv3x3(latent_channels, width, rngs=rngs)
        layers = []
        for level, next_width in enumerate(reversed(widths)):
            if level:
                layers.append(Upsample(width, next_width, rngs=rngs))
            width = next_width
            layers += [ResBlock(width, width, rngs=rngs) for _ in range(blocks)]
        self.layers = nnx.List(layers)
        self.norm = group_norm(width, rngs=rngs)
        self.head = conv3x3(width, channels * patch**2, rngs=rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        x = self.stem(z)
        for layer in self.layers:
            x = layer(x)
        x, p = self.head(nnx.silu(self.norm(x))), self.patch
        return rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=p, q=p)
