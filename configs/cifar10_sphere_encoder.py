"""Sphere Encoder on CIFAR-10 with the released script's settings.

docs/systems/sphere_encoder.md. All but what a data set of small images changes is
imagenet_sphere_encoder.py.
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_sphere_encoder.py")))

IMAGES = 50_000


def get_config():
    steps_per_epoch = IMAGES // imagenet["BATCH"]
    config = imagenet["get_config"]()
    config.data.source = "cifar10"  # the official binary version, or one packed .npz
    config.data.path = "data/cifar-10-batches-bin"
    config.data.image_size = 32
    config.data.num_classes = 10

    config.tokenizer.size = "base"  # published; calculated: 263.8M
    config.tokenizer.patch = 2  # published: 256 tokens
    config.tokenizer.latent_channels = 8  # published: 3 x 32^2 / (16^2 x 1.5)
    config.tokenizer.mixer_depth = 2  # published
    config.tokenizer.pixel_head = "conv"  # published
    config.tokenizer.remat = "none"
    config.sphere_encoder.most_per_device = 0

    config.sphere_encoder.steps = 5000 * steps_per_epoch  # published: 5000 epochs
    config.sphere_encoder.max_angle = 80.0  # published
    config.sphere_encoder.reconstruction_weight = 1.0  # w1, published, as the two below
    config.sphere_encoder.consistency_weight = 0.5  # w3
    config.sphere_encoder.consistency_perceptual = 0.5  # w4
    config.sphere_encoder.optimizer.warmup = 10 * steps_per_epoch + 1  # published, of 10 epochs
    config.sphere_encoder.optimizer.hold = 10 * steps_per_epoch  # published: ends one warm-up early

    config.sampler.guidance = 1.2  # published

    config.evaluation.samples = 5000
    return config
