"""Plain DINOv2 ViT-L/14 at 224 pixels: the class token. Its Fréchet distance is the FD-DINOv2 of
dgm-eval (2306.04675) and EDM2; EDM2 resizes in floats, which it says gives almost the same."""

from sphere_jax.evaluation.features.image_towers import ImageTower


class DINOv2(ImageTower):
    whole = True
    distance_title = "FD-DINOv2 (plain ViT-L/14 at 224)"


FEATURES = DINOv2("dinov2_vitl14")
