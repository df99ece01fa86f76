"""Sphere Latent Encoder on RAE latents of ImageNet: published outline and size, inferred settings.

docs/systems/sphere_latent.md. Latents are those of RAE (16x16x768), encoded elsewhere or by
sphere_jax.prepare (with config.tokenizer.name="rae"); what the paper leaves open is marked
inferred. animal_faces_ and flowers_sphere_latent.py are the other data sets.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
BATCH = 1024  # inferred


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("sphere_latent",)

    config.data = ConfigDict()
    config.data.source = "latents"  # a folder with latents.npy (N,16,16,768), labels.npy (N,) and
    # test_ of both; without these a fifth of the first is held out
    config.data.path = "data/imagenet_latents"
    config.data.num_classes = 1000

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "precomputed"
    config.tokenizer.latent_shape = (16, 16, 768)  # published: RAE, DINOv2-B with registers

    config.space = ConfigDict()
    config.space.sphere = "global"  # published: the whole latent, radius sqrt(196,608)

    config.model = ConfigDict()
    config.model.name = "denoiser"  # published: no time, no noise level; inferred: its blocks,
    # family 1 of docs/systems/sphere_latent.md#denoiser
    config.model.size = "XL"  # published: 675,160,896 parameters
    config.model.patch = 1  # published
    config.model.compute_dtype = "bfloat16"  # inferred
    config.model.unroll = False  # one scanned layer: quick to compile
    config.model.remat = "blocks"

    config.sphere_latent = ConfigDict()
    config.sphere_latent.method = "sphere_latent"
    config.sphere_latent.steps = 80 * IMAGES // BATCH  # inferred: not published for B
    config.sphere_latent.batch_size = BATCH  # inferred: RAE's second stage, as the optimizer
    config.sphere_latent.ema_decay = 0.9995  # inferred; published: samples use the EMA
    config.sphere_latent.log_every = 100
    config.sphere_latent.checkpoint_every = 5000
    config.sphere_latent.preview_every = 5000
    config.sphere_latent.label_dropout = 0.1  # inferred
    config.sphere_latent.level_mean = 0.0  # inferred: logit-normal is published, its parameters not
    config.sphere_latent.level_std = 1.0  # inferred
    config.sphere_latent.noise_map = "tangent"  # inferred: E's map; "interpolation" is the other
    config.sphere_latent.max_angle = 85.0  # inferred: E's at 256 px
    config.sphere_latent.distance = "l1"  # inferred: the norm's symbol is lost in our copy
    config.sphere_latent.cosine = "latent"  # inferred: over the flattened latent
    config.sphere_latent.target = "projected"  # inferred: sections 4.1 and 4.2 of B differ
    config.sphere_latent.inputs = "low"  # inferred
    config.sphere_latent.distance_weight = 1.0  # inferred, as the three below
    config.sphere_latent.cosine_weight = 1.0
    config.sphere_latent.reconstruction_weight = 1.0
    config.sphere_latent.consistency_weight = 1.0
    config.sphere_latent.optimizer = ConfigDict()
    config.sphere_latent.optimizer.learning_rate = 2e-4  # inferred
    config.sphere_latent.optimizer.b2 = 0.95  # inferred
    config.sphere_latent.optimizer.clip_norm = 1.0  # inferred

    config.sampler = ConfigDict()
    config.sampler.steps = 4  # published: 4 and 6
    config.sampler.guidance = 1.5  # inferred: not published, sweep 1 to 2
    config.sampler.schedule = "decreasing"  # inferred: of Algorithm 1 the outline is published
    config.sampler.share_noise = True  # inferred
    config.sampler.batch_size = 256

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # no decoder in this run: sphere_jax.sample writes latents

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
