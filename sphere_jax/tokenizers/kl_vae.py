"""The published VAEs of latent diffusion as tokenizers, normalised as their first users do.

methods.md A.2. FLUX.2 packs each 2x2 of latents into one position of 4 d channels, of which its
batch norm keeps mean and variance; the others shift and scale all channels alike.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange

from sphere_jax.models.kl_vae import KINDS, Decoder, Encoder
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.norms import per_channel

# Latents are (mean - shift) * scale. REPA-E publishes its FLUX.1 VAE as a replacement of FLUX.1's;
# that it is normalised like it is inferred. What that leaves is normalised channel by channel where
# statistics are given (`whiten`), as VA-VAE's authors publish beside it.
SCALE_AND_SHIFT = {
    "sd": (0.18215, 0.0),
    "flux1": (0.3611, 0.1159),
    "repae_flux1": (0.3611, 0.1159),
    "vavae": (1.0, 0.0),
}
BATCH_NORM_EPS = 1e-4  # of FLUX.2, added to the variance


def pack(z: jax.Array) -> jax.Array:
    """(B, 2 h, 2 w, d) -> (B, h, w, 4 d), ordered channel, row, column, as FLUX packs."""
    return rearrange(z, "b (h p) (w q) d -> b h w (d p q)", p=2, q=2)


def unpack(z: jax.Array) -> jax.Array:
    """Inverse of `pack`."""
    return rearrange(z, "b h w (d p q) -> b (h p) (w q) d", p=2, q=2)


@dataclasses.dataclass(frozen=True)
class KLVAE:
    """Pure functions; their parameters are those of `AutoencoderKL`.

    They are {"encoder", "decoder"}, and "statistics" for FLUX.2. Image sides are multiples of
    `multiple`; they need not be those of `image_shape`.
    """

    encoder: Network
    decoder: Network
    kind: str
    packed: bool  # latents in the form of `pack`
    whiten: bool  # by {"mean", "std"} of the channels, "statistics"; FLUX.2 has others
    multiple: int
    latent_shape: tuple[int, int, int]  # (h, w, d)
    image_shape: tuple[int, int, int]  # (H, W, 3)
    parts: tuple[str, ...]
    last_layer: ClassVar = "head"

    @classmethod
    def build(
        cls,
        image_size: int | tuple[int, int],
        kind: str,
        packed: bool = False,
        dtype: jnp.dtype = jnp.float32,
        whiten: bool = False,
    ) -> "KLVAE":
        """`image_size` is a side or (height, width), `kind` a key of `KINDS`.

        `dtype` is that of the networks' products and activations.

        Raises:
          ValueError: there is no such kind, or the sides are not multiples of 8, of 16 for VA-VAE
            and FLUX.2, or of twice their own with `packed`.
        """
        if kind not in KINDS:
            raise ValueError(f"kind of VAE must be one of {', '.join(KINDS)}, not {kind!r}")
        sizes = dict(KINDS[kind])
        statistics = sizes.pop("statistics", False)
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        factor = 2 ** (len(sizes["widths"]) - 1)
        multiple = 2 * factor if packed or statistics else factor
        _check_sides(kind, multiple, height, width)
        grid, d = (height // factor, width // factor), sizes["latent_channels"]
        return cls(
            encoder=Network(lambda rngs: Encoder(**sizes, rngs=rngs, dtype=dtype)),
            decoder=Network(lambda rngs: Decoder(**sizes, rngs=rngs, dtype=dtype)),
            kind=kind,
            packed=packed,
            whiten=whiten,
            multiple=multiple,
            latent_shape=(grid[0] // 2, grid[1] // 2, 4 * d) if packed else (*grid, d),
            image_shape=(height, width, 3),
            parts=("encoder", "decoder", *(("statistics",) if statistics or whiten else ())),
        )

    def posterior(self, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance, each (B, H / 8, W / 8, d) float32, neither normalised nor packed.

        Of float images (B, H, W, 3) in [-1, 1]; H / 16, W / 16 for VA-VAE. The log variance is
        clipped to [-30, 20].

        Raises:
          ValueError: the sides of the images are not multiples of `multiple`.
        """
        _check_sides(self.kind, self.multiple, *images.shape[1:3])
        moments = self.encoder.apply(params["encoder"], images)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Float images in [-1, 1] to the normalised posterior mean, (B, *latent_shape) float32."""
        return self.normalize(params, self.posterior(params, images)[0])

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Normalised latents to float images, unclipped: (B, H, W, 3) float32."""
        return self.decoder.apply(params["decoder"], self.denormalize(params, latents))

    def normalize(self, params: Params, z: jax.Array) -> jax.Array:
        """Latents of the encoder to those of other networks, packed if `packed`."""
        if self.kind in SCALE_AND_SHIFT:
            scale, shift = self._scale_and_shift(params)
            z = (z - shift) * scale
            return pack(z) if self.packed else z
        mean, std = _batch_norm(params)
        z = (pack(z) - mean) / std
        return z if self.packed else unpack(z)

    def denormalize(self, params: Params, z: jax.Array) -> jax.Array:
        """Inverse of `normalize`, up to rounding."""
        if self.kind in SCALE_AND_SHIFT:
            scale, shift = self._scale_and_shift(params)
            return (unpack(z) if self.packed else z) / scale + shift
        mean, std = _batch_norm(params)
        return unpack((z if self.packed else pack(z)) * std + mean)

    def _scale_and_shift(self, params: Params):
        scale, shift = SCALE_AND_SHIFT[self.kind]
        if not self.whiten:
            return scale, shift
        mean, std = (per_channel(params["statistics"][name], 4) for name in ("mean", "std"))
        return scale / std, shift + mean / scale


def _check_sides(kind: str, multiple: int, height: int, width: int) -> None:
    if height % multiple or width % multiple:
        raise ValueError(
            f"the {kind} VAE needs image sides divisible by {multiple}, not {height}x{width}"
        )


def _batch_norm(params: Params) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the packed channels, (1, 1, 1, 4 d) each."""
    mean, var = (params["statistics"][name].reshape((1, 1, 1, -1)) for name in ("mean", "var"))
    return mean, jnp.sqrt(var + BATCH_NORM_EPS)
