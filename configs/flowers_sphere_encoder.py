"""Sphere Encoder on Oxford Flowers-102 at 256 px with the released script's settings.

docs/systems/sphere_encoder.md. The script trains size base; the released model is large, 948M
(published), which is what this trains. All else, batch and losses included, is
imagenet_sphere_encoder.py. Put the images below data/flowers/train/<class>/ and
data/flowers/val/<class>/.
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_sphere_encoder.py")))

IMAGES = 8_189  # inferred: an epoch is all of Flowers-102, its three parts together


def get_config():
    steps_per_epoch = IMAGES // imagenet["BATCH"]
    config = imagenet["get_config"]()
    config.data.path = "data/flowers"
    config.data.num_classes = 102

    config.tokenizer.latent_channels = 128  # published: 3 x 256^2 / (32^2 x 1.5)

    config.sphere_encoder.steps = 1000 * steps_per_epoch  # published: 1000 epochs (but see IMAGES)
    config.sphere_encoder.reconstruction_weight = 25.0  # w1, published
    config.sphere_encoder.consistency_weight = 1.0  # w3, published
    config.sphere_encoder.optimizer.warmup = 10 * steps_per_epoch + 1  # published, of 10 epochs
    config.sphere_encoder.optimizer.hold = 10 * steps_per_epoch  # published: ends one warm-up early

    config.sampler.guidance = 1.6  # published: the command, whose heading says 1.4
    config.sampler.share_noise = False  # published
    return config
