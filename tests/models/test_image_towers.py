"""MAE, CLIP, SigLIP 2, ConvNeXt V2 and plain DINOv2 as feature networks: from uint8 to what timm
and transformers make of it, at a small width with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sphere_jax.evaluation.features import (
    clip_vitl14,
    clip_vitl14_256,
    clip_vitl14_336,
    clip_vitl14_336_gelu,
    convnextv2_base,
    convnextv2_base_384,
    dinov2_vitl14,
    dinov2_vitl14_256,
    dinov2_vitl14_518,
    mae_vitl16,
    siglip2_so400m16,
    siglip2_so400m16_512,
)
from sphere_jax.evaluation.features.published import PublishedFeatures
from sphere_jax.models.clip import CLIP
from sphere_jax.models.convnext import ConvNeXt, GlobalResponseNorm
from sphere_jax.models.dino import DINO
from sphere_jax.models.mae import KIND, MAE
from sphere_jax.models.siglip import SigLIP
from sphere_jax.nn.functional import Network
from sphere_jax.nn.resize import bicubic, pillow_bicubic
from sphere_jax.weights.layouts import clip, convnext, dino, siglip
from sphere_jax.weights.tensors import convert, export

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), np.uint8)
SIZE = dict(width=32, depth=2, heads=4)
TIMM = dict(embed_dim=32, depth=2, num_heads=4, dynamic_img_size=True, dynamic_img_pad=True)
STAGES = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))


def make(module, *args, **options):
    return Network(lambda rngs: module(*args, **options, rngs=rngs))


NETWORKS = {  # of a feature network at the small width
    dinov2_vitl14_256.FEATURES: make(
        DINO, **SIZE, patch=14, grid=37, **dinov2_vitl14_256.FEATURES.options
    ),
    dinov2_vitl14_518.FEATURES: make(DINO, **SIZE, patch=14, grid=37),
    mae_vitl16.FEATURES: make(MAE, **SIZE),
    clip_vitl14_256.FEATURES: make(
        CLIP, **SIZE, grid=16, embedding=24, **clip_vitl14_256.FEATURES.options
    ),
    clip_vitl14_336_gelu.FEATURES: make(
        CLIP, **SIZE, grid=24, embedding=24, **clip_vitl14_336_gelu.FEATURES.options
    ),
    clip_vitl14.FEATURES: make(CLIP, **SIZE, grid=16, embedding=24),
    clip_vitl14_336.FEATURES: make(CLIP, **SIZE, grid=24, embedding=24),
    siglip2_so400m16.FEATURES: make(SigLIP, **SIZE, hidden=56, patch=16, grid=16),
    siglip2_so400m16_512.FEATURES: make(SigLIP, **SIZE, hidden=56, patch=16, grid=32),
    convnextv2_base.FEATURES: make(ConvNeXt, *STAGES.values(), 10, grn=True),
    convnextv2_base_384.FEATURES: make(ConvNeXt, *STAGES.values(), 10, grn=True),
}
LAYOUTS = {DINO: dino, MAE: dino, CLIP: clip, SigLIP: siglip, ConvNeXt: convnext}
CASES = [  # feature network, what timm calls it, its options there
    (dinov2_vitl14_256.FEATURES, "vit_large_patch14_dinov2", TIMM),
    (mae_vitl16.FEATURES, "vit_large_patch16_224", TIMM),
    (clip_vitl14_256.FEATURES, "vit_large_patch14_clip_224", TIMM),
    (siglip2_so400m16.FEATURES, "vit_so400m_patch16_siglip_256", TIMM | dict(mlp_ratio=1.75)),
    (convnextv2_base.FEATURES, "convnextv2_base", STAGES),
    (dinov2_vitl14_518.FEATURES, "vit_large_patch14_dinov2", TIMM),
    (clip_vitl14_336_gelu.FEATURES, "vit_large_patch14_clip_336", TIMM),
    (siglip2_so400m16_512.FEATURES, "vit_so400m_patch16_siglip_512", TIMM | dict(mlp_ratio=1.75)),
    (convnextv2_base_384.FEATURES, "convnextv2_base", STAGES),
]


def relative_error(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def outputs(kind, params, images=IMAGES):
    return PublishedFeatures(kind, "", None, NETWORKS[kind], params).batch(images, kind.outputs)


def from_original(kind, tensors):
    network = NETWORKS[kind]
    found = LAYOUTS[type(network.module)].layouts(network)
    return convert(tensors, found, network)


def randomised(model):
    """Fresh positions and biases are zero, fresh scales one."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            torch.nn.init.normal_(tensor, std=0.1)
            if "norm" in name and name.endswith("weight"):
                tensor += 1
    return model.eval()


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "name", "options"), CASES, ids=[case[0].name for case in CASES])
def test_parity_with_timm(kind, name, options):
    """FDr^6's preprocessing and pooling in PyTorch. Largest relative error seen: 1e-6."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals
    from torchvision_shim import importorskip

    timm = importorskip("timm")
    classes = 10 if name.startswith("convnext") else 24 if "clip" in name else 0
    model = randomised(timm.create_model(name, num_classes=classes, **options))
    if "clip" in name:
        torch.nn.init.zeros_(model.head.bias)  # as in the file of OpenAI's weights
    tag = ".openai" if "clip" in name else ".mae" if name == "vit_large_patch16_224" else ""
    published = timm.get_pretrained_cfg(f"{name}{tag}" if tag else default_tag(timm, name))
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (published.mean, published.std))
    with torch.no_grad():
        x = originals.nchw(IMAGES).float() / 255
        size = (kind.side, kind.side)
        x = torch.nn.functional.interpolate(x, size=size, mode="bicubic", antialias=True)
        tokens = model.forward_features((x - mean) / std)
        if tokens.ndim == 4:
            expected = tokens.mean((2, 3))
        else:
            expected = tokens[:, 0] if model.num_prefix_tokens else model.pool(tokens)
        head = model.forward_head(tokens).numpy()
    found = outputs(kind, from_original(kind, originals.published(model)))
    assert relative_error(found["features"], expected.numpy()) <= 1e-4
    for other in found.keys() - {"features"}:  # the classifier, or the projection
        assert relative_error(found[other], head) <= 1e-4


def default_tag(timm, name):
    """With the tag of the published weights."""
    tags = ("lvd142m", "v2_webli", "fcmae_ft_in22k_in1k")
    return next(n for n in timm.list_pretrained(f"{name}.*") if n.split(".")[1] in tags)


@pytest.mark.parity
@pytest.mark.parametrize("kind", [clip_vitl14.FEATURES, clip_vitl14_336.FEATURES])
def test_parity_with_transformers_clip(kind):
    """On our input, which other tests compare. The text tower beside it is ignored."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        projection_dim=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=kind.side,
        patch_size=14,
        hidden_act="quick_gelu",
    )
    model = randomised(transformers.CLIPVisionModelWithProjection(config))
    with torch.no_grad():
        x = originals.nchw(np.array(kind.prepare(jnp.asarray(IMAGES))))
        expected = model(x)
    tensors = originals.published(model) | {"text_model.final_layer_norm.bias": np.zeros(3)}
    found = outputs(kind, from_original(kind, tensors))
    embedding = expected.image_embeds.numpy()
    if kind is clip_vitl14_336.FEATURES:
        embedding = embedding / np.linalg.norm(embedding, axis=-1, keepdims=True)
        assert relative_error(found["features"], embedding) <= 1e-4
    else:
        assert relative_error(found["embedding"], embedding) <= 1e-4
        cls = model.vision_model(x).pooler_output.detach().numpy()
        assert relative_error(found["features"], cls) <= 1e-4


@pytest.mark.parity
def test_parity_with_transformers_siglip():
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    transformers = pytest.importorskip("transformers")
    config = transformers.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=256,
        patch_size=16,
    )
    model = randomised(transformers.SiglipVisionModel(config))
    x = np.random.default_rng(1).uniform(-1, 1, (2, 256, 256, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(originals.nchw(x)).pooler_output.numpy()
    tensors = {  # files hold both towers
        f"vision_model.{name.removeprefix('vision_model.')}": value
        for name, value in originals.published(model).items()
    }
    kind = siglip2_so400m16.FEATURES
    params = from_original(kind, tensors | {"logit_scale": np.zeros(1)})
    found = jax.jit(lambda p, x: NETWORKS[kind].bind(p).pooled(x))(params, x)
    assert relative_error(found, expected) <= 1e-4


@pytest.mark.parametrize("size", [(224, 224), (20, 30), (48, 40), (64, 100)])
def test_resizing_of_pillow(size):
    """Of whole numbers, up and down."""
    found = np.asarray(pillow_bicubic(IMAGES, *size))
    resized = [Image.fromarray(x).resize(size[::-1], Image.Resampling.BICUBIC) for x in IMAGES]
    difference = np.abs(found - np.stack([np.asarray(x) for x in resized]).astype(np.float32))
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3


def test_inputs_of_towers():
    """Sizes with their padding; Pillow's way is clipped, FDr^6's and CMMD's are not, and CMMD's is
    that of JAX."""
    sharp = np.zeros((1, 8, 8, 3), np.uint8)
    sharp[:, :, 4:] = 255
    found = {kind.name: kind.prepare(jnp.asarray(sharp)) for kind in NETWORKS}
    found["dinov2_vitl14"] = dinov2_vitl14.FEATURES.prepare(jnp.asarray(sharp))
    sides = {"dinov2_vitl14_256": 266, "clip_vitl14_256": 266, "clip_vitl14_336": 336}
    sides |= {"clip_vitl14_336_gelu": 336, "convnextv2_base_384": 384}
    sides |= {"dinov2_vitl14_518": 518, "siglip2_so400m16_512": 512}
    for name, x in found.items():
        assert x.shape == (1, *(2 * [sides.get(name, 224)]), 3), name
    assert np.all(np.asarray(found["dinov2_vitl14_256"])[:, 256:] == 0)
    white, black = found["dinov2_vitl14"].max((0, 1, 2)), found["dinov2_vitl14"].min((0, 1, 2))
    np.testing.assert_allclose(white, [2.2489, 2.4286, 2.64], atol=1e-3)
    assert np.all(found["mae_vitl16"].max((0, 1, 2)) > white + 0.1)
    assert np.all(found["mae_vitl16"].min((0, 1, 2)) < black - 0.1)
    assert found["siglip2_so400m16"].max() > 1.05
    x = jnp.asarray(IMAGES, jnp.float32)
    theirs = jax.image.resize(x, (2, 336, 336, 3), "bicubic")
    np.testing.assert_allclose(bicubic(x, 336, 336, antialias=True), theirs, atol=2e-3)


def test_a_global_response_norm_by_hand():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    norm = GlobalResponseNorm(5)
    norm.scale[...], norm.bias[...] = jnp.arange(5.0), jnp.arange(5.0) + 1
    size = np.sqrt((x**2).sum((1, 2), keepdims=True))
    expected = x + np.arange(5) * x * size / size.mean(-1, keepdims=True) + np.arange(5) + 1
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-4)


def test_mae_is_a_vit_large():
    assert KIND["width"] == 1024 and KIND["depth"] == 24 and KIND["grid"] == 224 // KIND["patch"]


def test_clip_as_openai_and_open_clip_have_it():
    """There and back, with the names of the public code; the text tower is ignored."""
    network = NETWORKS[clip_vitl14.FEATURES]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), network.shapes)
    layouts = clip.layouts(network)
    tensors = export(params, layouts[-1])
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert len(shapes) == 8 + 12 * 2
    assert shapes["visual.conv1.weight"] == (32, 3, 14, 14)
    assert shapes["visual.class_embedding"] == (32,)
    assert shapes["visual.positional_embedding"] == (257, 32)
    assert shapes["visual.ln_pre.weight"] == shapes["visual.ln_post.bias"] == (32,)
    assert shapes["visual.proj"] == (32, 24)
    block = "visual.transformer.resblocks.1."
    assert shapes[f"{block}attn.in_proj_weight"] == (96, 32)
    assert shapes[f"{block}attn.in_proj_bias"] == (96,)
    assert shapes[f"{block}attn.out_proj.weight"] == (32, 32)
    assert shapes[f"{block}mlp.c_fc.weight"] == (128, 32)
    assert shapes[f"{block}ln_2.weight"] == (32,)
    tensors |= {"logit_scale": np.zeros(1), "token_embedding.weight": np.zeros((5, 3))}
    jax.tree.map(np.testing.assert_array_equal, convert(tensors, layouts, network), params)
