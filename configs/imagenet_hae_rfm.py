"""Riemannian flow matching on HAE latents of ImageNet-256, LightningDiT-XL/1.

docs/systems/hae.md#network, #flow. The latents are encoded by HAE's released files or by another
program, and decoded there: `sphere_jax.sample --out=F.npz` writes them at the norm that HAE
decodes, 14. An autoencoder of your own and this flow: imagenet_hae.py. `--dry_run` needs no data.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
BATCH = 1024  # published
EPOCHS = 550  # published; ablations at 80: --config.flow.steps=100080
STEPS_PER_EPOCH = IMAGES // BATCH


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("flow",)

    config.data = ConfigDict()
    config.data.source = "latents"  # a folder with latents.npy (N,16,16,1024), labels.npy (N,) and
    # test_ of both; without these a fifth of the first is held out
    config.data.path = "data/imagenet_hae_latents"
    config.data.num_classes = 1000

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "precomputed"
    config.tokenizer.latent_shape = (16, 16, 1024)  # published: DINOv3-L tokens

    config.space = ConfigDict()
    config.space.path = "slerp"  # published
    config.space.sphere = "token"  # published
    config.space.radius = 32.0  # published: sqrt(1024)
    config.space.retraction = "exp"  # published: algorithm 2, whose text says projection instead

    config.model = ConfigDict()
    config.model.name = "lightning_dit"
    config.model.size = "XL"  # published: 677M parameters; calculated: 677.8M
    config.model.patch = 1  # published
    config.model.time_embedding = "fourier"  # inferred: RAE's and RJF's; not published for HAE
    config.model.qk_norm = False  # inferred: RJF's; not published for HAE
    config.model.compute_dtype = "float32"  # published: bfloat16 was unstable. See docs/bf16.md
    config.model.unroll = False  # one scanned layer: quick to compile
    config.model.remat = "blocks"

    config.flow = ConfigDict()
    config.flow.method = "flow"
    config.flow.steps = EPOCHS * STEPS_PER_EPOCH
    config.flow.batch_size = BATCH
    config.flow.ema_decay = 0.9995  # published: 0.9999 hurts
    config.flow.label_dropout = 0.1  # inferred: RAE's and RJF's; not published for HAE
    config.flow.tangent_projection = True  # published
    config.flow.radial_weight = 0.1  # published: 0 and 1 are worse
    config.flow.time_density = "logit_normal"  # published: of mean 0 and deviation 1
    config.flow.time_shift = 0.0  # published: from the dimension, sqrt(262,144 / 4,096) = 8
    config.flow.log_every = 100
    config.flow.checkpoint_every = 5_000
    config.flow.preview_every = 5_000
    config.flow.optimizer = ConfigDict()
    config.flow.optimizer.learning_rate = 2e-4  # published
    config.flow.optimizer.schedule = "linear"  # inferred, and the three below: RAE's
    config.flow.optimizer.constant_steps = 40 * STEPS_PER_EPOCH
    config.flow.optimizer.fall_steps = 760 * STEPS_PER_EPOCH  # until epoch 800, whatever EPOCHS
    config.flow.optimizer.final_fraction = 0.1
    config.flow.optimizer.b1 = 0.9  # published
    config.flow.optimizer.b2 = 0.95  # published
    config.flow.optimizer.weight_decay = 0.0  # inferred
    config.flow.optimizer.clip_norm = 1.0  # inferred

    config.sampler = ConfigDict()
    config.sampler.solver = "euler"  # published: along the exponential map
    config.sampler.steps = 50  # published
    config.sampler.guidance = 1.0  # published: 1.1 for guided samples
    config.sampler.decode_radius = 14.0  # published
    config.sampler.batch_size = 256

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # no decoder in this run: sphere_jax.sample writes latents

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
