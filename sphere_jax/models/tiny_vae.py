"""TAESD and its successors: an autoencoder of 2.4 million parameters for a large VAE's latents.

Github madebyollin/taesd. Images are RGB in [0, 1]; latents are those of the large VAE as a
diffusion model sees them, at an eighth of the image's sides. Both halves are stages of plain 3x3
convolutions at one width, joined by strided convolutions down and nearest neighbour up.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.linear import Linear
from sphere_jax.nn.transformer_layers import Stack

DEPTHS = (1, 3, 3, 3)  # blocks a stage of the encoder, from the image on; the decoder's mirror them
FACTOR = 8  # pixels of a latent position's side
GROUPS = 4


class Kind(NamedTuple):
    latent_channels: int
    group_norm: bool  # in the stage next to the latents


KINDS = {
    "taesd": Kind(4, False),  # Stable Diffusion 1 and 2
    "taef1": Kind(16, False),  # FLUX.1
    "taef2": Kind(32, True),  # FLUX.2
}


def conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True, rngs, dtype) -> nnx.Conv:
    return nnx.Conv(
        *(inputs, outputs, (3, 3)), strides=stride, padding=1, use_bias=bias, dtype=dtype, rngs=rngs
    )


class Block(nnx.Module):
    """`relu(x + conv(relu(conv(relu(conv(x))))))`, (B, h, w, width) to the same.

    With `group_norm`, first `x + contract(relu(norm(expand(x))))`: the norm's groups span the whole
    grid, the only operation that joins distant positions.
    """

    def __init__(self, width: int, group_norm: bool, *, rngs: nnx.Rngs, dtype: jnp.dtype):
        self.convs = nnx.List([conv(width, width, rngs=rngs, dtype=dtype) for _ in range(3)])
        self.group_norm = group_norm
        if group_norm:
            self.expand = Linear(width, 4 * width, bias=False, rngs=rngs, dtype=dtype)
            self.norm = nnx.GroupNorm(
                4 * width, num_groups=GROUPS, epsilon=1e-5, use_fast_variance=False, rngs=rngs
            )
            self.contract = Linear(4 * width, width, bias=False, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.group_norm:
            x = x + self.contract(nnx.relu(self.norm(self.expand(x))))
        h = x
        for layer in self.convs[:-1]:
            h = nnx.relu(layer(h))
        return nnx.relu(x + self.convs[-1](h))


def stage(depth: int, width: int, group_norm: bool, *, rngs: nnx.Rngs, dtype) -> Stack:
    # Unrolled, for the reason that `Stack` gives.
    block = lambda r: Block(width, group_norm, rngs=r, dtype=dtype)  # noqa: E731
    return Stack(block, depth, unroll=True, rngs=rngs)


class Encoder(nnx.Module):
    """Images to latents.

    `width` is that of every hidden layer, the published one unless given; `dtype` is that of the
    convolutions and of the maps between them. Parameters and what comes out are float32.
    """

    def __init__(
        self,
        latent_channels: int,
        group_norm: bool = False,
        *,
        rngs: nnx.Rngs,
        width: int = 64,
        dtype: jnp.dtype = jnp.float32,
    ):
        how = dict(rngs=rngs, dtype=dtype)
        last = len(DEPTHS) - 1
        down = [conv(width, width, stride=2, bias=False, **how) for _ in range(last)]
        self.convs = nnx.List([conv(3, width, **how), *down])
        self.stages = nnx.List(
            stage(depth, width, group_norm and k == last, **how) for k, depth in enumerate(DEPTHS)
        )
        self.head = conv(width, latent_channels, **how)

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """RGB (B, H, W, 3) in [0, 1] to the output of every stage and the latents.

        "stage0" .. "stage3" are (B, H / 2^k, W / 2^k, width) in `dtype`, "latents" is
        (B, H / 8, W / 8, latent_channels) float32. Sides that are no multiples of 8 are rounded up.
        """
        x, maps = images, {}
        for k, (layer, blocks) in enumerate(zip(self.convs, self.stages, strict=True)):
            x = blocks(layer(x))
            maps[f"stage{k}"] = x
        return maps | {"latents": self.head(x).astype(jnp.float32)}

    def __call__(self, images: jax.Array) -> jax.Array:
        """RGB (B, H, W, 3) in [0, 1] to latents (B, H / 8, W / 8, latent_channels), float32."""
        return self.features(images)["latents"]


class Decoder(nnx.Module):
    """Latents to images; arguments as those of `Encoder`."""

    def __init__(
        self,
        latent_channels: int,
        group_norm: bool = False,
        *,
        rngs: nnx.Rngs,
        width: int = 64,
        dtype: jnp.dtype = jnp.float32,
    ):
        how = dict(rngs=rngs, dtype=dtype)
        up = [conv(width, width, bias=False, **how) for _ in DEPTHS[1:]]
        self.convs = nnx.List([conv(latent_channels, width, **how), *up])
        self.stages = nnx.List(
            stage(depth, width, group_norm and k == 0, **how)
            for k, depth in enumerate(reversed(DEPTHS))
        )
        self.head = conv(width, 3, **how)

    def features(self, latents: jax.Array) -> dict[str, jax.Array]:
        """Latents (B, h, w, latent_channels) to the output of every stage and the images.

        "stage0" .. "stage3" are (B, 2^k h, 2^k w, width) in `dtype`, "images" is (B, 8 h, 8 w, 3)
        float32, about RGB in [0, 1], not clipped. Latents are first squashed to (-3, 3).
        """
        x, maps = 3 * jnp.tanh(latents.astype(jnp.float32) / 3), {}
        for k, (layer, blocks) in enumerate(zip(self.convs, self.stages, strict=True)):
            x = blocks(layer(doubled(x)) if k else nnx.relu(layer(x)))
            maps[f"stage{k}"] = x
        return maps | {"images": self.head(x).astype(jnp.float32)}

    def __call__(self, latents: jax.Array) -> jax.Array:
        """Latents (B, h, w, latent_channels) to images (B, 8 h, 8 w, 3) float32, not clipped."""
        return self.features(latents)["images"]


class TinyVAE(nnx.Module):
    """Both halves, `TinyVAE(*KINDS["taesd"], rngs=rngs)`; arguments as those of `Encoder`."""

    def __init__(
        self,
        latent_channels: int,
        group_norm: bool = False,
        *,
        rngs: nnx.Rngs,
        width: int = 64,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.group_norm = group_norm
        options = dict(rngs=rngs, width=width, dtype=dtype)
        self.encoder = Encoder(latent_channels, group_norm, **options)
        self.decoder = Decoder(latent_channels, group_norm, **options)

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """What both halves name: "encoder/stage0" .. "encoder/latents" .. "decoder/images"."""
        encoded = self.encoder.features(images)
        decoded = self.decoder.features(encoded["latents"])
        halves = {"encoder": encoded, "decoder": decoded}
        return {f"{half}/{name}": x for half, maps in halves.items() for name, x in maps.items()}

    def __call__(self, images: jax.Array) -> jax.Array:
        """RGB (B, H, W, 3) in [0, 1] to their reconstructions, float32, not clipped."""
        return self.decoder(self.encoder(images))


def doubled(x: jax.Array) -> jax.Array:
    """Nearest neighbour: (B, h, w, C) -> (B, 2 h, 2 w, C)."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
