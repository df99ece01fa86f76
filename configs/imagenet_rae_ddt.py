"""The Euclidean baseline of RJF and HAE: linear flow matching on whitened RAE latents, DiT-DH-XL.

Published scores (docs/systems/hae.md#published-results): gFID 2.16 after 80 epochs, 1.51 after 800,
unguided. HAE prints 879M parameters; these are 838.7M. Training follows RAE as far as it is known
(docs/systems/hae.md#rae-flow); the rest is inferred. `--config.model.size=B` is smaller.

Images lie below data/imagenet/train/<class>/ and data/imagenet/val/<class>/. Encode them once
with `python -m sphere_jax.prepare latents --config=configs/imagenet_rae_ddt.py --out=C` and add
`--config.data.source=cache --config.data.path=C` to the run. `--dry_run` needs neither.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
BATCH = 1024  # inferred: RJF's
EPOCHS = 800  # published; 80 is too
STEPS_PER_EPOCH = IMAGES // BATCH


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("flow",)  # the tokenizer is frozen

    config.data = ConfigDict()
    config.data.source = "folder"  # class folders of images; "cache" once they are encoded
    config.data.path = "data/imagenet"
    config.data.image_size = 256  # published
    config.data.resize = "adm"  # inferred: the usual centre crop
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.flip = True  # inferred, RAE's; of a cache, its mirrored half
    config.data.threads = 8

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "rae"  # published: DINOv2-B with registers, latents 16x16x768
    config.tokenizer.decoder = "xlarge"  # published: RAE's own, not adapted
    config.tokenizer.whiten = True  # inferred: RAE's statistics, which RJF leaves out
    config.tokenizer.pretrained_statistics = ""  # sphere_jax.convert --network rae_statistics_256
    config.tokenizer.pretrained_encoder = ""  # sphere_jax.convert --network rae_encoder
    config.tokenizer.pretrained_decoder = ""  # sphere_jax.convert --network rae_decoder_xlarge
    config.tokenizer.compute_dtype = "bfloat16"  # inferred

    config.space = ConfigDict()
    config.space.path = "linear"  # published: Euclidean flow matching

    config.model = ConfigDict()
    config.model.name = "lightning_ddt"
    config.model.size = "XL"  # published: a LightningDiT-XL and a head of 2 layers 2,048 wide
    config.model.patch = 1
    config.model.qk_norm = False  # inferred
    config.model.compute_dtype = "float32"  # inferred: RJF's. bfloat16: see docs/bf16.md
    config.model.unroll = False  # one scanned layer: quick to compile
    config.model.remat = True

    config.flow = ConfigDict()
    config.flow.method = "flow"
    config.flow.encode = "every_step"  # images as they come; of a cache there is nothing to do
    config.flow.steps = EPOCHS * STEPS_PER_EPOCH
    config.flow.batch_size = BATCH
    config.flow.ema_decay = 0.9995  # inferred: RJF's
    config.flow.label_dropout = 0.1  # published
    config.flow.time_density = "uniform"  # inferred
    config.flow.time_shift = 0.0  # inferred: from the dimension, sqrt(196,608 / 4,096) = 6.928
    config.flow.log_every = 100
    config.flow.checkpoint_every = 5_000
    config.flow.preview_every = 5_000
    config.flow.optimizer = ConfigDict()
    config.flow.optimizer.learning_rate = 2e-4  # inferred, and the schedule but for its shape:
    config.flow.optimizer.schedule = "linear"  # published: constant, then linear
    config.flow.optimizer.constant_steps = 40 * STEPS_PER_EPOCH  # published
    config.flow.optimizer.fall_steps = 760 * STEPS_PER_EPOCH  # published: until epoch 800, also
    config.flow.optimizer.final_fraction = 0.1  # where the run ends sooner or later
    config.flow.optimizer.b1 = 0.9  # inferred
    config.flow.optimizer.b2 = 0.95  # inferred
    config.flow.optimizer.weight_decay = 0.0  # inferred
    config.flow.optimizer.clip_norm = 1.0  # inferred

    config.sampler = ConfigDict()
    config.sampler.solver = "euler"  # inferred
    config.sampler.steps = 50  # inferred
    config.sampler.guidance = 1.0  # published: unguided, and guided (1.13) by a weaker network
    config.sampler.batch_size = 256

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # published: 50,000, in the features below
    config.evaluation.features = "inception_fid"  # published: FID, by the ADM suite
    config.evaluation.pretrained = ""  # what sphere_jax.convert --network inception_fid wrote

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 1
    return config
