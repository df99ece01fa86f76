"""flow-sphere on ImageNet at 256 px with the settings of the public code.

docs/systems/flow_sphere.md. Its author reports no numbers. Put the images below
data/imagenet/train/<class>/ and data/imagenet/val/<class>/. imagenet64_ and cifar10_flow_sphere.py
are the other published sizes.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("flow_sphere",)

    config.data = ConfigDict()
    config.data.source = "folder"  # class folders of images
    config.data.path = "data/imagenet"
    config.data.image_size = 256
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.flip = True  # published

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "flow_sphere"
    config.tokenizer.width = 768  # published: 118.4M, encoder and decoder
    config.tokenizer.depth = 6  # published (the README says 4)
    config.tokenizer.heads = 8  # published
    config.tokenizer.head_dim = 64  # published: 512 channels of attention
    config.tokenizer.hidden = 3072  # published
    config.tokenizer.patch = 16  # published: 256 tokens
    config.tokenizer.latent_channels = 48  # published: 768 / 16
    config.tokenizer.normalize = False  # published: no batch norm at this size
    config.tokenizer.rope = "1d"  # published
    config.tokenizer.conditional = False  # published
    config.tokenizer.compute_dtype = "bfloat16"  # published: autocast
    config.tokenizer.unroll = False  # one scanned layer: quick to compile
    config.tokenizer.remat = "blocks"

    config.flow_sphere = ConfigDict()
    config.flow_sphere.method = "flow_sphere"
    config.flow_sphere.steps = 500_000  # published
    config.flow_sphere.warmup = 10_000  # published
    config.flow_sphere.batch_size = 256  # inferred: 256 chips split it; published: 80 (README: 128)
    config.flow_sphere.ema_decay = 0.9999  # inferred: the original has no average
    config.flow_sphere.weights = "raw"  # published: no average
    config.flow_sphere.log_every = 100
    config.flow_sphere.checkpoint_every = 5000
    config.flow_sphere.preview_every = 5000
    config.flow_sphere.max_angle = 85.0  # published
    config.flow_sphere.hard_angle = 89.0  # published
    config.flow_sphere.hard_fraction = 0.1  # published
    config.flow_sphere.noise_on = "latent"  # published; without a batch norm its scale is free
    config.flow_sphere.reconstruction_weight = 50.0  # published, as the five below
    config.flow_sphere.reconstruction_perceptual = 1.0
    config.flow_sphere.consistency_weight = 50.0
    config.flow_sphere.consistency_perceptual = 1.0
    config.flow_sphere.latent_weight = 0.5
    config.flow_sphere.flow_weight = 1.0
    config.flow_sphere.rho = 0.75  # published
    config.flow_sphere.encoder_gradients = True  # published
    config.flow_sphere.context = True  # published
    config.flow_sphere.time = "table"  # published
    config.flow_sphere.width = 768  # published: 107.2M, as the three below
    config.flow_sphere.depth = 12
    config.flow_sphere.head_dim = 64
    config.flow_sphere.hidden = 2048
    config.flow_sphere.lpips = ""  # LPIPS-VGG weights, which hold VGG-16; published: with it
    config.flow_sphere.optimizer = ConfigDict()
    config.flow_sphere.optimizer.learning_rate = 3e-3  # published
    config.flow_sphere.optimizer.matrices = "muon"  # published
    config.flow_sphere.optimizer.muon_rate = 10.0  # published
    config.flow_sphere.optimizer.muon_momentum = 0.95  # published
    config.flow_sphere.optimizer.muon_decay = 0.1  # published: the default of torch.optim.Muon
    config.flow_sphere.optimizer.schedule = "cosine"  # published
    config.flow_sphere.optimizer.warmup = 500  # published
    config.flow_sphere.optimizer.final_fraction = 1e-6 / 3e-3  # published: 1e-6, Muon's 1e-5
    config.flow_sphere.optimizer.b2 = 0.95  # published
    config.flow_sphere.optimizer.clip_norm = 1.0  # published

    config.sampler = ConfigDict()
    config.sampler.steps = 10  # published: nine Heun steps and the last prediction

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # the default features and class SVM are for small images

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
