"""Sphere Latent Encoder on RAE latents of Animal-Faces: published size, inferred settings.

docs/systems/sphere_latent.md. All but the data, the size of the network and the number of steps is
imagenet_sphere_latent.py, which also says where latents come from.
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_sphere_latent.py")))

IMAGES = 14_336  # inferred: an epoch is the training part of AFHQ v2


def get_config():
    config = imagenet["get_config"]()
    config.data.path = "data/animal_faces_latents"
    config.data.num_classes = 3
    config.model.size = "B"  # published; calculated: 130M
    config.model.remat = "none"
    config.sphere_latent.steps = 1000 * IMAGES // imagenet["BATCH"]  # inferred: E's epochs
    return config
