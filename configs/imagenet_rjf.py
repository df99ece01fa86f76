"""RJF: Riemannian flow matching with Jacobi weights on RAE latents of ImageNet-256, LightningDiT-B.

docs/systems/hae.md#rjf. RJF works on unit spheres, feeds the network sqrt(768) x_t and predicts
velocities at unit scale. Here the sphere has the radius sqrt(768); with
parameterization="unit_sphere" the network sees and predicts the same as RJF's. The loss and its
gradients are 768 times as large, so the clipping norm and AdamW's eps are, too: at RJF's own scale
most second moments lie below eps, which AdamW then does not divide out.

Put the images below data/imagenet/train/<class>/ and data/imagenet/val/<class>/. Encode them once
with `python -m sphere_jax.prepare latents --config=configs/imagenet_rjf.py --out=C` and add
`--config.data.source=cache --config.data.path=C` to the run. `--dry_run` needs neither.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
BATCH = 1024  # published; the released config of B says 1,023
EPOCHS = 800  # inferred: where the published decay ends; published: 80 and up to 1,400,
# --config.flow.steps=100080 and 1751400
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

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "rae"  # published: DINOv2-B with registers, latents 16x16x768
    config.tokenizer.decoder = "xlarge"  # published: RAE's own, not adapted
    config.tokenizer.whiten = False  # published: tokens keep their norm of 27.7
    config.tokenizer.pretrained_encoder = ""  # sphere_jax.convert --network rae_encoder
    config.tokenizer.pretrained_decoder = ""  # sphere_jax.convert --network rae_decoder_xlarge
    config.tokenizer.compute_dtype = "bfloat16"  # inferred

    config.space = ConfigDict()
    config.space.path = "slerp"  # published
    config.space.sphere = "token"  # published
    config.space.radius = 0.0  # sqrt(768): see above
    config.space.retraction = "exp"  # published

    config.model = ConfigDict()
    config.model.name = "lightning_dit"
    config.model.size = "B"  # published, and XL: 131M, 677M; calculated: 131.9M, 677.2M
    config.model.patch = 1  # published
    config.model.time_embedding = "fourier"  # published
    config.model.qk_norm = False  # published
    config.model.parameterization = "unit_sphere"  # published: velocities of unit spheres
    config.model.compute_dtype = "bfloat16"  # published: float32. See docs/bf16.md
    config.model.unroll = False  # one scanned layer: quick to compile
    config.model.remat = "products"  # all but the results of linear layers: docs/performance.md

    config.flow = ConfigDict()
    config.flow.method = "flow"
    config.flow.encode = "every_step"  # images; a cache holds latents already
    config.flow.steps = EPOCHS * STEPS_PER_EPOCH
    config.flow.batch_size = BATCH
    config.flow.ema_decay = 0.9995  # published
    config.flow.label_dropout = 0.1  # published
    config.flow.tangent_projection = True  # published
    config.flow.radial_weight = 0.0  # published: no radial penalty
    config.flow.loss_weight = "jacobi"  # published: the direction of the released code
    config.flow.time_density = "truncated_logit_normal"  # published: mean 0, deviation 1
    config.flow.time_high = 0.999  # published
    config.flow.time_shift = 0.0  # published: from the dimension, sqrt(196,608 / 4,096) = 6.928
    config.flow.log_every = 100
    config.flow.checkpoint_every = 5_000
    config.flow.preview_every = 5_000
    config.flow.optimizer = ConfigDict()
    config.flow.optimizer.learning_rate = 2e-4  # published
    config.flow.optimizer.schedule = "linear"  # published
    config.flow.optimizer.constant_steps = 40 * STEPS_PER_EPOCH  # published
    config.flow.optimizer.fall_steps = 760 * STEPS_PER_EPOCH  # published: until epoch 800, also
    # where the run ends sooner or later
    config.flow.optimizer.final_fraction = 0.1  # published: 2e-5
    config.flow.optimizer.b1 = 0.9  # published
    config.flow.optimizer.b2 = 0.95  # published
    config.flow.optimizer.weight_decay = 0.0  # published
    config.flow.optimizer.eps = 768e-8  # calculated: published 1e-8, on gradients 768 times smaller
    config.flow.optimizer.clip_norm = 768.0  # calculated: published 1, likewise

    config.sampler = ConfigDict()
    config.sampler.solver = "euler"  # published: along the exponential map
    config.sampler.steps = 49  # published: between 50 times
    config.sampler.t_end = 0.001  # published: the last of them, before the shift
    config.sampler.guidance = 1.0  # published: unguided and guided, scale not given
    config.sampler.decode_radius = 45.1  # published: for scores; 27.7 in previews. Sweep it
    config.sampler.batch_size = 256

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # published: 50,000
    config.evaluation.features = "inception_fid"  # inferred: near the published FID, that of the
    # ADM suite, which resizes otherwise (docs/systems/shared.md#evaluation)
    config.evaluation.pretrained = ""  # what sphere_jax.convert --network inception_fid wrote

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
