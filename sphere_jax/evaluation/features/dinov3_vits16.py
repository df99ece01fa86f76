"""DINOv3 ViT-S/16: the class token."""

from sphere_jax.evaluation.features.dino import ClassToken

FEATURES = ClassToken("dinov3_vits16")
