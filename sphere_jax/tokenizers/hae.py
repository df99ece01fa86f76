"""The Hyperspherical Autoencoder (HAE, 2601.22904): a trained stem on a frozen ViT, and a decoder.

docs/systems/hae.md#stem and #decoder. Stages of the run train stem and decoder, and the ViT too
where it is given none; or a file holds all three.
"""

import dataclasses
import itertools
import math
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Images, Latents, OneKey
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, DataOptions, remat_option
from sphere_jax.models.dc_ae import EVIT, RES, Decoder
from sphere_jax.models.dinov3 import KINDS, DINOv3
from sphere_jax.models.hae import HAE as Autoencoder
from sphere_jax.models.hae import ConvStem, PatchStem, vit_input
from sphere_jax.models.vit import Tokens
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.remat import Remat
from sphere_jax.tokenizers.base import TokenizerOptions
from sphere_jax.tokenizers.from_files import FromFiles, given
from sphere_jax.weights.layouts import dinov3 as vit_layouts
from sphere_jax.weights.layouts import hae as layouts
from sphere_jax.weights.stored import WeightsFile

META = "_meta"  # periods of the rotation in bfloat16, as Meta's own files have them
OWN = ("vit_width", "vit_depth", "vit_heads", "patch")  # what a published ViT stands for
PATCH = 16  # of the published ones


@dataclasses.dataclass(frozen=True)
class HAEOptions(TokenizerOptions):
    """arXiv 2601.22904, Tables 7 and 8; docs/systems/hae.md#stem and #decoder."""

    name: str = "hae"
    vit: Literal[
        "",
        "dinov3_vits16",
        "dinov3_vits16plus",
        "dinov3_vitb16",
        "dinov3_vitl16",
        "dinov3_vits16_meta",
        "dinov3_vits16plus_meta",
        "dinov3_vitb16_meta",
        "dinov3_vitl16_meta",
    ] = option("dinov3_vitl16_meta", help="a published ViT, or '' for vit_width to patch")
    vit_width: int = option(128, 8, help="of the ViT, where vit is ''")
    vit_depth: int = option(6, 1, help="blocks")
    vit_heads: int = option(4, 1, help="of attention")
    patch: int = option(8, 2, help="pixels a token, along each side: a power of two")
    stem: Literal["conv", "patch"] = option("conv", help="patch: the ViT's own, trained further")
    stem_widths: tuple[int, ...] = option(
        (64, 128, 256), help="of all convolutions but the last, which has the ViT's"
    )
    stem_norm: Literal["trms2d", "sample_rms"] = option(
        "trms2d", help="over channels at each pixel, or as released over all of a sample"
    )
    decoder_widths: tuple[int, ...] = option(
        (256, 512, 512, 1024, 1024), help="one a level, the finest first"
    )
    decoder_depths: tuple[int, ...] = option((5, 5, 3, 3, 3), help="blocks of each level")
    attention_levels: int = option(2, 0, help="coarsest levels of EViT blocks, not residual ones")
    decoder_norm: Literal["trms2d", "sample_rms"] = option(
        "trms2d", help="over channels at each pixel, or as released over all of a sample"
    )
    attention_norm: Literal["trms2d", "sample_rms", "none"] = option(
        "trms2d", help="in EViT blocks; the released code has none"
    )
    pretrained_vit: str = option(
        "", file=True, help="its weights; '' with vit='': a stage trains it"
    )
    pretrained: str = option(
        "", file=True, help="stem, ViT and decoder in one file; '': stages train them"
    )
    compute_dtype: Literal["float32", "bfloat16"] = option("float32", help="of products")
    remat: Remat = remat_option()
    unroll: bool = option(
        True, help="one program a layer (quick on CPU), or one scanned layer (quick to compile)"
    )


@dataclasses.dataclass(frozen=True)
class HAE(FromFiles):
    """Its parameters are {"stem", "vit", "decoder"}.

    `stored`: those of them that files give. `whole` is all of it in one file.
    """

    stem: Network
    vit: Network
    decoder: Network
    whole: Network
    stored: tuple[str, ...]
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]

    Options = HAEOptions
    parts: ClassVar = ("stem", "vit", "decoder")
    encoder_parts: ClassVar = ("stem", "vit")
    last_layer: ClassVar = "project_out"
    statistics: ClassVar = None
    released_layout: ClassVar = True
    not_of_latents: ClassVar = (
        *("compute_dtype", "remat", "unroll", "decoder_widths", "decoder_depths"),
        *("attention_levels", "decoder_norm", "attention_norm"),
    )

    @classmethod
    def trained_by_run(cls, options: HAEOptions) -> bool:
        return options.pretrained == ""

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        s: HAEOptions = config.tokenizer
        free = HAEOptions()
        own = [key for key in OWN if getattr(s, key) != getattr(free, key)]
        check(
            s.vit == "" or not own,
            f"config.tokenizer.vit='{s.vit}' fixes its sizes: set it to '' to choose them, or "
            f"leave config.tokenizer.{' and '.join(own)} out.",
        )
        patch = _patch(s)
        levels = round(math.log2(patch))
        check(
            2**levels == patch and levels <= 4,
            f"config.tokenizer.patch={patch} must be 2, 4, 8 or 16.",
        )
        check(
            config.data.image_size % patch == 0,
            f"config.data.image_size={config.data.image_size} must be a multiple of the "
            f"{patch} pixels of a token.",
        )
        check(
            s.stem == "patch" or len(s.stem_widths) == levels - 1,
            f"config.tokenizer.stem_widths={s.stem_widths} must hold {levels - 1} widths: the last "
            f"of {levels} convolutions has the ViT's.",
        )
        check(
            len(s.decoder_widths) == len(s.decoder_depths) == levels + 1,
            f"config.tokenizer.decoder_widths and decoder_depths must hold {levels + 1} numbers, "
            f"one for each grid from 1 to {patch} pixels.",
        )
        check(
            min(*s.decoder_widths, *s.decoder_depths, *s.stem_widths, 1) > 0,
            "config.tokenizer: widths and depths must be positive.",
        )
        latent, coarsest = _vit_sizes(s)["width"], s.decoder_widths[-1]
        check(
            coarsest % latent == 0,
            f"config.tokenizer.decoder_widths={s.decoder_widths}: the last must be a multiple of "
            f"the ViT's width {latent}.",
        )
        for fine, coarse in itertools.pairwise(s.decoder_widths):
            check(  # a level's shortcut repeats channels: nn/dc_ae_blocks.py, Upsample
                4 * fine % coarse == 0,
                f"config.tokenizer.decoder_widths={s.decoder_widths}: {coarse} must divide 4 times "
                f"the {fine} of the finer level.",
            )
        check(
            s.attention_levels <= levels + 1,
            f"config.tokenizer.attention_levels={s.attention_levels} is more than {levels + 1} "
            "levels.",
        )
        check(
            s.pretrained == "" or s.pretrained_vit == "",
            "config.tokenizer.pretrained holds the ViT too: leave pretrained_vit empty.",
        )
        check(
            s.pretrained == "" or s.stem == "conv",
            "config.tokenizer.pretrained is a file with a convolutional stem: stem='conv'.",
        )

    @classmethod
    def build(cls, data: DataOptions, options: HAEOptions) -> "HAE":
        s, levels = options, len(options.decoder_widths)
        sizes, patch = dict(_vit_sizes(s)), _patch(s)
        sizes["embeds"] = s.pretrained == ""  # a file holds the stem in its place
        dtype = jnp.dtype(s.compute_dtype)
        running = dict(dtype=dtype, unroll=s.unroll, remat=s.remat)
        width, fine = sizes["width"], levels - s.attention_levels
        blocks = (RES,) * fine + (EVIT,) * s.attention_levels
        decoding = dict(
            latent_channels=width,
            widths=s.decoder_widths,
            depths=s.decoder_depths,
            blocks=blocks,
            norms=(s.decoder_norm,) * fine + (s.attention_norm,) * s.attention_levels,
            activations=("silu",) * levels,
            resample="interpolate",
            out_norm=s.decoder_norm,
        )

        def stem(rngs):
            if s.stem == "patch":
                return PatchStem(width, patch, rngs=rngs, dtype=dtype)
            widths = (*s.stem_widths, width)
            return ConvStem(widths=widths, norm=s.stem_norm, rngs=rngs, dtype=dtype)

        vit = partial(DINOv3, **sizes, **running)
        decoder = partial(Decoder, **decoding, **running)
        side = data.image_size // patch
        given = cls.parts if s.pretrained else ("vit",) if s.vit or s.pretrained_vit else ()
        try:
            return cls(
                stem=Network(stem),
                vit=Network(lambda rngs: vit(rngs=rngs)),
                decoder=Network(lambda rngs: decoder(rngs=rngs)),
                whole=Network(
                    lambda rngs: Autoencoder(
                        stem(rngs),
                        DINOv3(**sizes | {"embeds": False}, **running, rngs=rngs),
                        decoder(rngs=rngs),
                    )
                ),
                stored=given,
                latent_shape=(side, side, width),
                image_shape=(data.image_size, data.image_size, 3),
            )
        except ValueError as error:
            raise UserError(f"config.tokenizer: {error}.") from error

    def shapes(self) -> Params:
        """Of what files give."""
        return {part: getattr(self, part).shapes for part in self.stored}

    def files(self, options: HAEOptions) -> dict[str, WeightsFile]:
        s = options
        if s.pretrained:
            name = "hae_autoencoder" if s.vit.startswith("dinov3_vitl16") else None
            return {"": WeightsFile(s.pretrained, name, self.whole, layouts.layouts)}
        if "vit" in self.stored:
            path, name = s.pretrained_vit, s.vit or None
            file = WeightsFile(path, name, self.vit, vit_layouts.layouts, part="vit")
            return {"vit": given("pretrained_vit", file)}
        return {}

    def fresh_stem(self, key: OneKey, vit: Params) -> Params:
        """New parameters of the stem: random, or of a patch stem those of the ViT's own."""
        if "patch_embedding" in self.stem.shapes:
            return {"patch_embedding": jax.tree.map(jnp.copy, vit["patch_embedding"])}
        return self.stem.init(key)

    def student(self, params: Params, images: Images) -> Tokens:
        """What the ViT makes of the stem's embedding of images in [-1, 1]."""
        embedded = self.stem.apply(params["stem"], vit_input(images))
        return self.vit.bind(params["vit"]).encode(embedded)

    def teacher(self, params: Params, images: Images) -> Tokens:
        """What the ViT makes of its own patch embedding."""
        return self.vit.apply(params["vit"], vit_input(images))

    def encode(self, params: Params, images: Images) -> Latents:
        """Float images (B, H, W, 3) in [-1, 1] to latents (B, h, w, d) float32, of any norm."""
        return self.as_latents(self.student(params, images))

    def as_latents(self, tokens: Tokens) -> Latents:
        """Patch tokens behind the ViT's last norm, (B, h, w, d)."""
        return tokens.patches.reshape(-1, *self.latent_shape)

    def decode(self, params: Params, latents: Latents) -> Images:
        """Latents to float images about [-1, 1], not clipped: (B, H, W, 3) float32."""
        return self.decoder.apply(params["decoder"], latents)


def _vit_sizes(options: HAEOptions) -> dict[str, Any]:
    """Arguments of `DINOv3`."""
    s = options
    if s.vit:
        rope = jnp.bfloat16 if s.vit.endswith(META) else jnp.float32
        return KINDS[s.vit.removesuffix(META)] | dict(rope_dtype=rope)
    return dict(width=s.vit_width, depth=s.vit_depth, heads=s.vit_heads, patch=s.patch)


def _patch(options: HAEOptions) -> int:
    return PATCH if options.vit else options.patch


TOKENIZER = HAE
