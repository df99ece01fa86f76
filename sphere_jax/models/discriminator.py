"""Discriminators for decoders: images in, a logit for every place out (arXiv 2605.15193;
arXiv 2601.22904, Tables 9 and 10; docs/systems/spherical_flow.md#decoder-adaptation,
docs/systems/hae.md#autoencoder-training)."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.dino import DINO, KINDS
from sphere_jax.models.imagenet import normalize
from sphere_jax.nn.conv import group_norm
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.linear import small_normal
from sphere_jax.nn.local_norm import LocalBatchNorm
from sphere_jax.nn.resize import bilinear

SLOPE = 0.2  # of the leaky ReLUs
DINO_KIND, DINO_SIDE = "dino_vits8", 224
TAPS = (2, 5, 8, 11, 11)  # blocks of it, counted from 0; the last has two heads
PLACES = 9  # tokens that a head sees at once
TURNS = 8  # of power iteration


@dataclasses.dataclass(frozen=True)
class Discriminator:
    """Pure functions. `network` learns; `backbone`, where there is one, is frozen under it.

    `advance(params) -> params` brings up to date what of `network` no gradient moves, once a step.
    """

    network: Network
    backbone: Network | None = None
    advance: Callable[[Params], Params] = lambda params: params

    def logits(self, params: Params, frozen: Params, images: jax.Array) -> jax.Array:
        """Images (B, H, W, 1 or 3) in [-1, 1] to logits (B, ...), float32.

        `params` are of `network` and `frozen` of `backbone` (anything, where there is none).
        """
        if self.backbone is None:
            return self.network.apply(params, images)
        images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        images = normalize((bilinear(images, DINO_SIDE, DINO_SIDE) + 1) / 2)
        found = self.backbone.bind(frozen).features(images, sorted(set(TAPS)))
        return self.network.apply(params, [found[f"block_{k}"][:, 1:] for k in TAPS])


def patch_discriminator(channels: int, width: int = 64, group: int = 0) -> Discriminator:
    """A `PatchDiscriminator`, with batch norm over `group` samples, or with 0 with GroupNorm."""

    def build(rngs):
        return PatchDiscriminator(channels, width, group=group, rngs=rngs)

    return Discriminator(Network(build))


def frozen_dino(exact_gelu: bool = True) -> Network:
    """The DINO ViT-S/8 that a discriminator reads. Its blocks are recomputed in the backward pass:
    the weights of attention among 785 tokens would be kept for all layers."""
    kind = KINDS[DINO_KIND]
    return Network(lambda rngs: DINO(**kind, exact_gelu=exact_gelu, remat="blocks", rngs=rngs))


def dino_discriminator() -> Discriminator:
    """Five heads on the blocks of a frozen DINO ViT-S/8 at 224 pixels (StyleGAN-T, RAE, HAE).

    Without the random translations and colours that those put before it.
    """
    width = KINDS[DINO_KIND]["width"]
    return Discriminator(
        Network(lambda rngs: Heads(width, len(TAPS), rngs=rngs)),
        frozen_dino(),
    )


class PatchDiscriminator(nnx.Module):
    """PatchGAN of pix2pix and VQGAN: with 3 layers of stride 2, the convolutions of a logit span
    70x70 pixels.

    Images (B, H, W, C) in [-1, 1] to logits (B, h, w), float32; sides of at least 32 pixels. The
    published one has BatchNorm, whose statistics in training are those of a device's batch: `group`
    samples. With 0 it is GroupNorm, which adds statistics of the whole image: a logit is a function
    of one image alone, so that neither micro-batches nor devices change it. There is no state
    beside the parameters: running averages are for a network that is not trained.
    """

    def __init__(
        self, channels: int, width: int = 64, layers: int = 3, *, group: int = 0, rngs: nnx.Rngs
    ):
        widths = [width * min(2**k, 8) for k in range(layers + 1)]
        strides = [2] * (layers - 1) + [1]
        pairs = zip(widths[:-1], widths[1:], strides, strict=True)
        self.stem = _conv(channels, width, 2, rngs)
        bias = group == 0  # a batch norm would take it out again
        self.convs = nnx.List([_conv(a, b, stride, rngs, bias) for a, b, stride in pairs])
        norms = [
            LocalBatchNorm(b, group=group, eps=1e-5) if group else group_norm(b, rngs=rngs)
            for b in widths[1:]
        ]
        self.norms = nnx.List(norms)
        self.head = _conv(widths[-1], 1, 1, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.leaky_relu(self.stem(images.astype(jnp.float32)), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.leaky_relu(norm(conv(x)), SLOPE)
        return self.head(x)[..., 0]


def _conv(inputs: int, outputs: int, stride: int, rngs: nnx.Rngs, bias: bool = True) -> nnx.Conv:
    return nnx.Conv(
        *(inputs, outputs, (4, 4)),
        strides=stride,
        padding=1,
        use_bias=bias,
        kernel_init=small_normal,
        rngs=rngs,
    )


class Heads(nnx.Module):
    """One `Head` for each of the maps (B, N, width): logits (B, maps, N)."""

    def __init__(self, width: int, maps: int, *, rngs: nnx.Rngs):
        self.heads = nnx.List([Head(width, rngs=rngs) for _ in range(maps)])

    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        return jnp.stack([head(x) for head, x in zip(self.heads, maps, strict=True)], axis=1)


class Head(nnx.Module):
    """Tokens (B, N, width) to a logit each, (B, N): convolutions along their raster, circular.

    Every kernel is divided by its largest singular value. Norms are over a token's channels, where
    the published head's are over a batch, for the reason that `PatchDiscriminator` gives.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        shapes = {"first": (1, width, width), "second": (PLACES, width, width),
                  "last": (1, width, 1)}  # fmt: skip
        for name, shape in shapes.items():
            setattr(self, name, SpectralConv(shape, rngs=rngs))
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nnx.leaky_relu(self.norms[0](self.first(tokens)), SLOPE)
        y = nnx.leaky_relu(self.norms[1](self.second(x)), SLOPE)
        return self.last((x + y) / math.sqrt(2))[..., 0]


class SpectralConv(nnx.Module):
    """Circular convolution (B, N, inputs) -> (B, N, outputs), its kernel of spectral norm about 1
    (3 to 7 % over at first, at DINO's width of 384).
    """

    def __init__(self, shape: tuple[int, int, int], *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(small_normal(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape[-1:], jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, half = self.kernel[...], self.kernel.shape[0] // 2
        kernel = kernel / spectral_norm(kernel.reshape(-1, kernel.shape[-1]))
        x = jnp.concatenate([x[:, x.shape[1] - half :], x, x[:, :half]], axis=1)
        y = jax.lax.conv_general_dilated(
            x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return y + self.bias[...].reshape(1, 1, -1)


def spectral_norm(matrix: jax.Array) -> jax.Array:
    """About the largest singular value: power iteration from a fixed vector, so that there is no
    state. As published, the vectors that it finds count as constants in the gradient.
    """
    fixed = jax.lax.stop_gradient(matrix)
    right = jax.random.normal(jax.random.key(0), (matrix.shape[1],))
    for _ in range(TURNS):
        left = _unit(fixed @ right)
        right = _unit(left @ fixed)
    return left @ matrix @ right + 1e-12


def _unit(vector: jax.Array) -> jax.Array:
    return vector / (jnp.linalg.norm(vector) + 1e-12)
