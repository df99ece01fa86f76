"""Plain DINOv2 ViT-L/14 as FDr^6 has it: 256 pixels, filled up to 266, positions resized by timm;
the class token."""

from sphere_jax.evaluation.features.image_towers import ImageTower


class DINOv2(ImageTower):
    weights = "dinov2_vitl14"
    options = dict(offset=0.0, antialias=True)
    side, patch = 256, 14


FEATURES = DINOv2("dinov2_vitl14_256")
