"""Published tokenizers, and statistics of their latents."""

from collections.abc import Iterator
from functools import partial

import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.dc_ae import DECODERS, AutoencoderDC, Decoder
from sphere_jax.models.dino import DINO
from sphere_jax.models.dino import KINDS as DINO_KINDS
from sphere_jax.models.dinov3 import KINDS as DINOV3_KINDS
from sphere_jax.models.dinov3 import DINOv3
from sphere_jax.models.hae import HAE, ConvStem
from sphere_jax.models.kl_vae import KINDS as KL_KINDS
from sphere_jax.models.kl_vae import AutoencoderKL
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.models.rae_decoder import SIZES as RAE_SIZES
from sphere_jax.models.rae_decoder import RAEDecoder
from sphere_jax.models.tiny_vae import KINDS as TINY_KINDS
from sphere_jax.models.tiny_vae import TinyVAE
from sphere_jax.weights.layouts import dc_ae, hae, kl_vae, latent_statistics, rae, tiny_vae
from sphere_jax.weights.published.entry import META, RAE_HOME, File, Published, hub

TINY = "https://raw.githubusercontent.com/madebyollin/taesd/main/{}"
VAVAE = "vavae-imagenet256-f16d32-dinov2"
WEIGHTS = "diffusion_pytorch_model.safetensors"

PARAMETERS = {  # numbers that a converted file holds; counting them takes a minute
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
    "hae_autoencoder": 477_083_011,
    "dc_ae_f32c32": 323_369_260,
    "dc_ae_f64c128": 676_908_940,
    "dc_ae_f128c512": 1_120_695_052,
}


def published() -> Iterator[Published]:
    """All of them, in the order of `sphere_jax.convert --list`."""
    yield from _kl_vaes()
    yield from _tiny_vaes()
    yield from _rae()
    yield from _statistics()
    yield from _hae()
    yield from _dc_aes()


def _new(name: str, about: str, *rest) -> Published:
    return Published("tokenizers", name, about, PARAMETERS[name], *rest)


def _kl_vaes() -> Iterator[Published]:
    for kind, name, about, home, licence, files in (
        ("sd", "sd_vae", "Stable Diffusion 1/2, f8, 4 channels", "stabilityai/sd-vae-ft-ema",
         "MIT", [WEIGHTS]),
        ("flux1", "flux1_vae", "FLUX.1, f8, 16 channels",
         "black-forest-labs/FLUX.1-schnell (gated)", "Apache-2.0", []),
        ("repae_flux1", "repae_flux1_vae", "FLUX.1 by REPA-E, f8, 16 channels",
         "REPA-E/e2e-flux-vae", "MIT", [WEIGHTS]),
        ("flux2", "flux2_vae", "FLUX.2, f8, 32 channels", "black-forest-labs/FLUX.2-klein-4B",
         "Apache-2.0", [f"vae/{WEIGHTS}"]),
        ("vavae", "vavae", "VA-VAE of LightningDiT, f16, 32 channels", f"hustvl/{VAVAE}",
         "MIT", [f"{VAVAE}.pt"]),
    ):  # fmt: skip
        module = partial(AutoencoderKL, **KL_KINDS[kind])
        yield _new(name, about, module, kl_vae.layouts, home, licence, hub(home, *files))


def _tiny_vaes() -> Iterator[Published]:
    home = "github madebyollin/taesd"
    for kind, of in (("taesd", "Stable Diffusion 1/2"), ("taef1", "FLUX.1"), ("taef2", "FLUX.2")):
        module, about = partial(TinyVAE, *TINY_KINDS[kind]), f"tiny VAE for latents of {of}, f8"
        files = tuple(File(TINY.format(f"{kind}_{half}.pth")) for half in ("encoder", "decoder"))
        yield _new(kind, about, module, tiny_vae.layouts, home, "MIT", files)


def _rae() -> Iterator[Published]:
    module = partial(DINO, **DINO_KINDS["dinov2_vitb14_reg"], final_affine=False)
    files = (File(META.format("dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth")),)
    home, about = "github facebookresearch/dinov2", "DINOv2-B, last norm without affine, for RAE"
    yield _new("rae_encoder", about, module, rae.encoder_layouts, home, "Apache-2.0", files)
    for size, sizes in RAE_SIZES.items():
        for side in (256, 512):
            module = partial(RAEDecoder, (side // 16,) * 2, 768, *sizes)
            files = hub(RAE_HOME, "decoders/dinov2/wReg_base/ViTXL_n08/model.pt")
            files = files if (size, side) == ("xlarge", 256) else ()
            name, about = f"rae_decoder_{size}_{side}", f"RAE's decoder of DINOv2-B, {side} px"
            yield _new(name, about, module, rae.layouts, RAE_HOME, "MIT", files)


def _statistics() -> Iterator[Published]:
    layouts = latent_statistics.layouts
    for shape, side in (((16, 16, 768), 256), ((32, 32, 768), 512)):
        files = hub(RAE_HOME, "stats/dinov2/wReg_base/imagenet1k/stat.pt") if side == 256 else ()
        module, about = partial(LatentStatistics, shape, "var"), f"RAE's latents, {side} px"
        yield _new(f"rae_statistics_{side}", about, module, layouts, RAE_HOME, "MIT", files)
    home, about = f"hustvl/{VAVAE}", "VA-VAE's latents of ImageNet"
    module, files = partial(LatentStatistics, (32,), "std"), hub(home, "latents_stats.pt")
    yield _new("vavae_statistics", about, module, layouts, home, "MIT", files)


def _hae() -> Iterator[Published]:
    def module(*, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32) -> HAE:
        vit = dict(DINOV3_KINDS["dinov3_vitl16"], embeds=False, rope_dtype=jnp.bfloat16)
        return HAE(
            ConvStem(norm="sample_rms", rngs=rngs, dtype=dtype),
            DINOv3(**vit, rngs=rngs, dtype=dtype),
            Decoder(**DECODERS["hae_released"], rngs=rngs, dtype=dtype),
        )

    home, about = "wkdgnsgo/dino-sae", "HAE's stem, DINOv3-L and decoder, f16, 1024 channels"
    yield _new("hae_autoencoder", about, module, hae.layouts, home, "not stated")


def _dc_aes() -> Iterator[Published]:
    for kind in ("f32c32", "f64c128", "f128c512"):
        home, module = f"mit-han-lab/dc-ae-{kind}-in-1.0-diffusers", partial(AutoencoderDC, kind)
        name, about = f"dc_ae_{kind}", f"DC-AE {kind}, ImageNet"
        yield _new(name, about, module, dc_ae.layouts, home, "MIT", hub(home, WEIGHTS))
