"""Sphere Latent Encoder on RAE latents of Animal-Faces: the published network and settings.

docs/systems/sphere_latent.md. All but the data, the size of the network and the number of steps is
imagenet_sphere_latent.py, which also says where latents come from.
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_sphere_latent.py")))

IMAGES = 14_336  # inferred: AFHQ v2, training part


def get_config():
    config = imagenet["get_config"]()
    config.data.path = "data/animal_faces_latents"
    config.data.num_classes = 3
    config.model.size = "B"  # published: 130M
    config.model.remat = False
    config.sphere_latent.steps = 1000 * IMAGES // imagenet["BATCH"]  # inferred: not published for B
    return config
