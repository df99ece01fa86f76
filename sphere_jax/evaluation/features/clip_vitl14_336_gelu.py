"""CLIP ViT-L/14 at 336 pixels as FDr^6 has it for images of 512: the class token.

FDr^6 uses timm's `vit_large_patch14_clip_336.openai`, whose activation is GELU, though the weights
were trained with `quick_gelu`. `clip_vitl14_336` is CMMD's.
"""

from sphere_jax.evaluation.features.clip_vitl14 import CLIPFeatures


class CLIP336(CLIPFeatures):
    weights = "clip_vitl14_336"
    options = dict(quick=False)
    side, whole = 336, False


FEATURES = CLIP336("clip_vitl14_336_gelu")
