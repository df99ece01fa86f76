"""CLIP ViT-L/14 as FDr^6 has it: 256 pixels, filled up to 266; the class token.

FDr^6 uses timm's `vit_large_patch14_clip_224.openai`, whose activation is GELU, though the weights
were trained with `quick_gelu`.
"""

from sphere_jax.evaluation.features.clip_vitl14 import CLIPFeatures


class CLIP256(CLIPFeatures):
    weights = "clip_vitl14"
    options = dict(quick=False)
    side, whole = 256, False


FEATURES = CLIP256("clip_vitl14_256")
