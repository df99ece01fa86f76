"""Plain DINOv2 ViT-L/14 at 518 pixels, its own size, as FDr^6 has it for images of 512."""

from sphere_jax.evaluation.features.image_towers import ImageTower


class DINOv2(ImageTower):
    weights = "dinov2_vitl14"
    side = 518


FEATURES = DINOv2("dinov2_vitl14_518")
