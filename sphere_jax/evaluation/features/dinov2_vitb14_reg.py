"""DINOv2 ViT-B/14 with registers: the class token."""

from sphere_jax.evaluation.features.dino import ClassToken

FEATURES = ClassToken("dinov2_vitb14_reg")
