"""AutoencoderKL: the convolutional VAE of latent diffusion (2112.10752) and its descendants.

One network in the kinds that are published (`KINDS`): the VAEs of Stable Diffusion 1 and 2, FLUX.1,
FLUX.2 and VA-VAE (2501.01423). arXiv 2605.15193; docs/systems/spherical_flow.md#tensors.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.attention import attend
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.norms import per_channel

GROUPS = 32  # of every group norm

# What `AutoencoderKL` is built with. Factor 8, but for VA-VAE's 16.
KINDS = {
    "sd": dict(latent_channels=4, widths=(128, 256, 512, 512)),
    "flux1": dict(latent_channels=16, widths=(128, 256, 512, 512), quant=False),
    "repae_flux1": dict(latent_channels=16, widths=(128, 256, 512, 512), quant=False),
    "flux2": dict(latent_channels=32, widths=(128, 256, 512, 512), statistics=True),
    "vavae": dict(latent_channels=32, widths=(128, 128, 256, 256, 512), attention_levels=(4,)),
}


class GroupNorm(nnx.Module):
    """(B, h, w, width) to the same: each of 32 groups of channels to mean 0 and variance 1.

    Statistics are float32, computed channel by channel and then averaged over a group: twice as
    fast on CPU as a reduction over a split channel axis, and exact however large the mean is.

    Raises:
      ValueError: if 32 does not divide `width`.
    """

    def __init__(self, width: int):
        if width % GROUPS:
            raise ValueError(f"width {width} is not divisible by {GROUPS} groups")
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        centred = x.astype(jnp.float32)
        centred = centred - _shared_in_group(centred.mean((1, 2)))
        variance = _shared_in_group(jnp.square(centred).mean((1, 2)))
        slope = jax.lax.rsqrt(variance + 1e-6) * per_channel(self.scale[...], x.ndim)
        return (centred * slope + per_channel(self.bias[...], x.ndim)).astype(x.dtype)


def _shared_in_group(channels: jax.Array) -> jax.Array:
    """(B, C) -> (B, 1, 1, C), each channel with the mean of its group."""
    batch, width = channels.shape
    means = channels.reshape(batch, GROUPS, -1).mean(-1)
    return jnp.repeat(means, width // GROUPS, axis=-1)[:, None, None]


def conv3x3(inputs: int, outputs: int, **options) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (3, 3), **{"padding": 1, **options})


class ResBlock(nnx.Module):
    """`x + conv2(silu(norm2(conv1(silu(norm1(x))))))`, with a 1x1 shortcut if the width changes."""

    def __init__(self, inputs: int, outputs: int, **options):
        self.norm1 = GroupNorm(inputs)
        self.conv1 = conv3x3(inputs, outputs, **options)
        self.norm2 = GroupNorm(outputs)
        self.conv2 = conv3x3(outputs, outputs, **options)
        self.shortcut = Linear(inputs, outputs, **options) if inputs != outputs else None

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.conv1(nnx.silu(self.norm1(x)))
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """`x + projection(attention(norm(x)))` over all h * w positions, one head of all channels."""

    def __init__(self, width: int, **options):
        self.norm = GroupNorm(width)
        self.qkv = Linear(width, 3 * width, **options)
        self.projection = Linear(width, width, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        tokens = self.qkv(self.norm(x)).reshape(x.shape[0], -1, 1, 3 * x.shape[-1])
        h = attend(*jnp.split(tokens, 3, axis=-1))
        return x + self.projection(h.reshape(x.shape))


class Middle(nnx.Module):
    """A residual block, attention and a residual block at the latent's resolution."""

    def __init__(self, width: int, **options):
        self.block1 = ResBlock(width, width, **options)
        self.attention = Attention(width, **options)
        self.block2 = ResBlock(width, width, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.block2(self.attention(self.block1(x)))


class Level(nnx.Module):
    """Residual blocks of one resolution, each followed by attention if there is `attention`."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attention: bool, **options):
        widths = [inputs] + [outputs] * blocks
        pairs = zip(widths, widths[1:], strict=False)
        self.blocks = nnx.List([ResBlock(a, b, **options) for a, b in pairs])
        attentions = [Attention(outputs, **options) for _ in range(blocks if attention else 0)]
        self.attentions = nnx.List(attentions)

    def __call__(self, x: jax.Array) -> jax.Array:
        for n, block in enumerate(self.blocks):
            x = block(x)
            x = self.attentions[n](x) if self.attentions else x
        return x


class Encoder(nnx.Module):
    """Images to the moments of their latents, halving the grid between levels.

    `widths` has one entry a level, from the pixels on; `attention_levels` are the levels, by that
    count, with attention after every block. `quant` adds a 1x1 convolution of the moments. `dtype`
    is that of products and activations; parameters, statistics and output are float32.
    """

    def __init__(
        self,
        latent_channels: int,
        widths: tuple[int, ...],
        blocks: int = 2,
        attention_levels: tuple[int, ...] = (),
        quant: bool = True,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        options = dict(rngs=rngs, dtype=dtype)
        self.stem = conv3x3(3, widths[0], **options)
        levels, width = [], widths[0]
        for k, next_width in enumerate(widths):
            levels.append(Level(width, next_width, blocks, k in attention_levels, **options))
            width = next_width
        # The original pads below and on the right only: nothing is left over of an even grid.
        halving = dict(strides=2, padding=((0, 1), (0, 1)), **options)
        self.levels = nnx.List(levels)
        self.downs = nnx.List([conv3x3(w, w, **halving) for w in widths[:-1]])
        self.middle = Middle(width, **options)
        self.norm = GroupNorm(width)
        moments = 2 * latent_channels
        self.head = conv3x3(width, moments, **options)
        self.quant = Linear(moments, moments, **options) if quant else None

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Images (B, H, W, 3) in [-1, 1], of any size, to maps in `dtype` by name, in this order.

        "stem" (B, H, W, widths[0]); "level0", "level1" ... behind the halving that ends each but
        the last, (B, H / 2, W / 2, widths[0]) and so on, sides rounded down; "middle" (B, h, w,
        widths[-1]); "moments" (B, h, w, 2 d), float32, mean before log variance.
        """
        x = self.stem(images)
        maps = {"stem": x}
        for k, level in enumerate(self.levels):
            x = level(x)
            x = self.downs[k](x) if k < len(self.downs) else x
            maps[f"level{k}"] = x
        maps["middle"] = x = self.middle(x)
        x = self.head(nnx.silu(self.norm(x)))
        x = x if self.quant is None else self.quant(x)
        return maps | {"moments": x.astype(jnp.float32)}

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images (B, H, W, 3) in [-1, 1] to moments (B, h, w, 2 d), mean before log variance."""
        return self.features(images)["moments"]


class Decoder(nnx.Module):
    """Latents to images, doubling the grid between levels. Arguments as in `Encoder`.

    Its levels run from the latent to the pixels, the reverse of `widths`, and have one block more.
    `quant` adds a 1x1 convolution of the latents.
    """

    def __init__(
        self,
        latent_channels: int,
        widths: tuple[int, ...],
        blocks: int = 2,
        attention_levels: tuple[int, ...] = (),
        quant: bool = True,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        options = dict(rngs=rngs, dtype=dtype)
        width = widths[-1]
        self.quant = Linear(latent_channels, latent_channels, **options) if quant else None
        self.stem = conv3x3(latent_channels, width, **options)
        self.middle = Middle(width, **options)
        levels = []
        for k, next_width in reversed(list(enumerate(widths))):
            levels.append(Level(width, next_width, blocks + 1, k in attention_levels, **options))
            width = next_width
        self.levels = nnx.List(levels)
        self.ups = nnx.List([conv3x3(w, w, **options) for w in reversed(widths[1:])])
        self.norm = GroupNorm(width)
        self.head = conv3x3(width, 3, **options)

    def features(self, latents: jax.Array) -> dict[str, jax.Array]:
        """Latents (B, h, w, d) to maps in `dtype` by name, in this order.

        "stem" and "middle" (B, h, w, widths[-1]); "level0", "level1" ... behind the doubling that
        ends each but the last, (B, 2 h, 2 w, widths[-1]) and so on; "images" (B, H, W, 3) float32.
        """
        x = latents if self.quant is None else self.quant(latents)
        x = self.stem(x)
        maps = {"stem": x}
        maps["middle"] = x = self.middle(x)
        for k, level in enumerate(self.levels):
            x = level(x)
            if k < len(self.ups):
                x = self.ups[k](jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))
            maps[f"level{k}"] = x
        x = self.head(nnx.silu(self.norm(x)))
        return maps | {"images": x.astype(jnp.float32)}

    def __call__(self, latents: jax.Array) -> jax.Array:
        """Latents (B, h, w, d) to images (B, H, W, 3), unbounded (callers clip)."""
        return self.features(latents)["images"]


class Statistics(nnx.Module):
    """Mean and variance of the channels of 2x2-packed latents, (4 d,) each, as training left them.

    They normalise latents for other networks; neither encoder nor decoder uses them.
    """

    def __init__(self, latent_channels: int):
        self.mean = nnx.Param(jnp.zeros((4 * latent_channels,), jnp.float32))
        self.var = nnx.Param(jnp.ones((4 * latent_channels,), jnp.float32))


class AutoencoderKL(nnx.Module):
    """Encoder and decoder of equal sizes; with `statistics`, those of the latents beside them."""

    def __init__(
        self,
        latent_channels: int,
        widths: tuple[int, ...],
        blocks: int = 2,
        attention_levels: tuple[int, ...] = (),
        quant: bool = True,
        statistics: bool = False,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        sizes = (latent_channels, widths, blocks, attention_levels, quant)
        self.encoder = Encoder(*sizes, rngs=rngs, dtype=dtype)
        self.decoder = Decoder(*sizes, rngs=rngs, dtype=dtype)
        self.statistics = Statistics(latent_channels) if statistics else None

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images (B, H, W, 3) to their reconstructions from the posterior mean."""
        mean, _ = jnp.split(self.encoder(images), 2, axis=-1)
        return self.decoder(mean)
