"""System A on a laptop's budget: CIFAR-10 at 64 pixels, latents of TAEF2, linear paths or spheres.

docs/results.md has the commands and the results. TAEF2 is a tiny autoencoder for the latents of
the FLUX.2 VAE, 8x8x32 here: a small version of the tokenizer of A's main table. Encode once, an
hour on one core, and take the statistics of the channels from what was written:

    F="--config=configs/cifar10_taef2.py --config.tokenizer.pretrained=TAEF2.safetensors"
    python -m sphere_jax.prepare latents $F --out=CACHE \\
        --config.data.source=cifar10 --config.data.path=CIFAR
    python -m sphere_jax.prepare statistics $F --config.data.path=CACHE --out=STATISTICS.safetensors
    python -m sphere_jax.main $F --workdir=runs/cifar10 --config.data.path=CACHE \\
        --config.tokenizer.pretrained_statistics=STATISTICS.safetensors

Sizes, steps and rates are inferred: no paper trains on this.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("decoder", "flow")  # raw latents use the original decoder: ("flow",)

    config.data = ConfigDict()
    config.data.source = "cache"  # 50,000 training images and 10,000 held out, each also mirrored
    config.data.path = ""
    config.data.image_size = 64  # 32x32, resized
    config.data.channels = 3
    config.data.num_classes = 10
    config.data.flip = True

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "tiny_vae"
    config.tokenizer.kind = "taef2"  # latents of f8 and d = 32, as FLUX.2's, which is published
    config.tokenizer.pretrained = ""  # what sphere_jax.convert --network taef2 wrote
    # what prepare statistics wrote: inferred (docs/systems/spherical_flow.md#pitfalls)
    config.tokenizer.pretrained_statistics = ""

    config.space = ConfigDict()
    config.space.path = "slerp"
    config.space.sphere = "token"
    config.space.radius = 0.0  # published: sqrt(d) = 5.66; inferred: of normalised latents
    config.space.retraction = "exp"

    config.model = ConfigDict()
    config.model.name = "sit"
    config.model.width = 192
    config.model.depth = 4
    config.model.heads = 6
    config.model.patch = 2  # published: A's SiT-B/2 on f8 latents
    config.model.compute_dtype = "float32"

    config.decoder = ConfigDict()
    config.decoder.method = "decoder"
    config.decoder.steps = 200
    config.decoder.batch_size = 8
    config.decoder.measured = 1000
    config.decoder.ema_decay = 0.99
    config.decoder.optimizer = ConfigDict()
    config.decoder.optimizer.learning_rate = 3e-4
    config.decoder.optimizer.schedule = "cosine"
    config.decoder.optimizer.warmup = 20
    config.decoder.optimizer.clip_norm = 1.0

    config.flow = ConfigDict()
    config.flow.method = "flow"
    config.flow.steps = 2000
    config.flow.batch_size = 64
    config.flow.ema_decay = 0.998
    config.flow.log_every = 100
    config.flow.checkpoint_every = 250
    config.flow.preview_every = 1000
    config.flow.label_dropout = 0.1
    config.flow.time_density = "uniform"
    config.flow.optimizer = ConfigDict()
    config.flow.optimizer.learning_rate = 1e-3
    config.flow.optimizer.schedule = "constant"
    config.flow.optimizer.warmup = 100
    config.flow.optimizer.clip_norm = 1.0

    config.sampler = ConfigDict()
    config.sampler.solver = "euler"
    config.sampler.steps = 25
    config.sampler.guidance = 1.0  # published: A's ablation is unguided

    config.evaluation = ConfigDict()
    config.evaluation.samples = 5000
    config.evaluation.features = "efficientnet_lite0"
    config.evaluation.pretrained = ""  # what sphere_jax.convert --network efficientnet_lite0 wrote

    config.mesh = ConfigDict()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    return config
