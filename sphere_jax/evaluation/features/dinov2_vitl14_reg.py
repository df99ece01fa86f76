"""DINOv2 ViT-L/14 with registers: the class token."""

from sphere_jax.evaluation.features.dino import ClassToken

FEATURES = ClassToken("dinov2_vitl14_reg")
