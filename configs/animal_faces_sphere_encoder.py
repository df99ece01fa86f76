"""Sphere Encoder on Animal-Faces at 256 px, without classes, with the released script's settings.

docs/systems/sphere_encoder.md. The script trains size base, with classes; the released model is
large and has none, which is what this trains. All else, batch and losses included, is
imagenet_sphere_encoder.py. Put the images below data/animal_faces/train/<class>/ and
data/animal_faces/val/<class>/.
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_sphere_encoder.py")))

IMAGES = 14_336  # inferred: an epoch is the training part of AFHQ v2


def get_config():
    steps_per_epoch = IMAGES // imagenet["BATCH"]
    config = imagenet["get_config"]()
    config.data.path = "data/animal_faces"
    config.data.num_classes = 3

    config.tokenizer.latent_channels = 128  # published: 3 x 256^2 / (32^2 x 1.5)
    config.tokenizer.conditional = False  # published: the model, 642M; the script has classes

    config.sphere_encoder.steps = 1000 * steps_per_epoch  # published: 1000 epochs (but see IMAGES)
    config.sphere_encoder.reconstruction_weight = 25.0  # w1, published
    config.sphere_encoder.consistency_weight = 1.0  # w3, published
    config.sphere_encoder.optimizer.warmup = 10 * steps_per_epoch + 1  # published, of 10 epochs
    config.sphere_encoder.optimizer.hold = 10 * steps_per_epoch  # published: ends one warm-up early

    config.sampler.guidance = 1.0  # published: none
    return config
