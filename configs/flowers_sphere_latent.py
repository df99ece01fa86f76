"""Sphere Latent Encoder on RAE latents of Oxford Flowers-102: published size, inferred settings.

docs/systems/sphere_latent.md. All but the data, the size of the network and the number of steps is
imagenet_sphere_latent.py, which also says where latents come from.
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_sphere_latent.py")))

IMAGES = 8_189  # inferred: an epoch is all of Flowers-102, its three parts together


def get_config():
    config = imagenet["get_config"]()
    config.data.path = "data/flowers_latents"
    config.data.num_classes = 102
    config.model.size = "B"  # published; calculated: 130M
    config.model.remat = "none"
    config.sphere_latent.steps = 1000 * IMAGES // imagenet["BATCH"]  # inferred: E's epochs
    return config
