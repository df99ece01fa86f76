"""MAE ViT-L/16 at 224 pixels, as FDr^6 has it: the class token after the encoder's norm."""

from sphere_jax.evaluation.features.image_towers import ImageTower

FEATURES = ImageTower("mae_vitl16")
