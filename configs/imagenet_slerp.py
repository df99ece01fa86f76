"""System A at full size: slerp flow matching on FLUX.2 VAE latents of ImageNet-256, SiT-B/2.

docs/systems/spherical_flow.md. Tags: published (the paper or its page), calculated (from what is
published), inferred (SiT's defaults where A is silent). `--config.model.size=XL` is the larger
published model; imagenet_linear.py is the published baseline, the three imagenet_slerp_*.py are
other tokenizers and imagenet_decoder.py is the first stage alone: A decodes with a decoder adapted
to the sphere (docs/systems/spherical_flow.md#decoder-adaptation). `"--config.stages=(flow,)"`
keeps the original decoder. Which losses adapt it and for how long is published; their weights,
rates and batch are inferred, as docs/systems/spherical_flow.md#decoder-adaptation recommends.

Put the images below data/imagenet/train/<class>/ and data/imagenet/val/<class>/. Encode them once
with `python -m sphere_jax.prepare latents --config=configs/imagenet_slerp.py --out=C`, both with
`--config.tokenizer.pretrained=FLUX2.safetensors`, and add `--config.data.source=cache
--config.data.path=C` to the run. `--dry_run` needs neither.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
EPOCHS = 80  # published: the main tables; one run has 200
BATCH = 256  # inferred
DECODER_EPOCHS = 5  # published
DECODER_BATCH = 256  # inferred; a pod of 256 chips splits it


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("decoder", "flow")  # the encoder is frozen

    config.data = ConfigDict()
    config.data.source = "folder"  # class folders of images; "cache" once they are encoded
    config.data.path = "data/imagenet"
    config.data.image_size = 256  # published
    config.data.resize = "adm"  # inferred: the usual centre crop
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.flip = True  # inferred, SiT's; of a cache, its mirrored half

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "kl_vae"
    config.tokenizer.kind = "flux2"  # published: f8, latents 32x32x32; inferred: normalised by the
    # statistics that come with it
    config.tokenizer.latents = "mean"  # inferred: the mean of the posterior; A does not say
    config.tokenizer.packed = False  # inferred from the published d = 32: not packed to 128
    config.tokenizer.pretrained = ""  # what sphere_jax.convert --network flux2_vae wrote
    config.tokenizer.compute_dtype = "bfloat16"  # inferred

    config.space = ConfigDict()
    config.space.path = "slerp"  # published
    config.space.sphere = "token"  # published: per latent position; inferred: not per model token
    config.space.radius = 0.0  # published: sqrt(d) = 5.66
    config.space.retraction = "exp"  # published: exponential map at inference

    config.model = ConfigDict()
    config.model.name = "sit"
    config.model.size = "B"  # published: B/2 and XL/2 on f8 latents
    config.model.patch = 2  # published: 256 model tokens
    config.model.compute_dtype = "bfloat16"  # inferred; geometry and loss stay float32
    config.model.unroll = False  # one scanned layer: quick to compile
    config.model.remat = "products"  # all but the results of linear layers: docs/performance.md

    config.decoder = ConfigDict()
    config.decoder.method = "decoder"  # published: encoder frozen, KL dropped
    config.decoder.steps = DECODER_EPOCHS * IMAGES // DECODER_BATCH  # calculated: 25,022
    config.decoder.batch_size = DECODER_BATCH
    config.decoder.ema_decay = 0.9975  # inferred: that of D's decoder
    config.decoder.log_every = 100
    config.decoder.checkpoint_every = 1_000
    config.decoder.preview_every = 1_000
    config.decoder.target = "images"  # published; "original" is ours: docs/decoder.md
    config.decoder.l1_weight = 1.0  # published: L1, LPIPS and a patch discriminator; inferred: 1
    config.decoder.l2_weight = 0.0
    config.decoder.lpips = ""  # LPIPS-VGG, to be given: sphere_jax.convert --network lpips_vgg16
    config.decoder.lpips_weight = 1.0  # inferred
    config.decoder.latent_noise = 0.0  # inferred: A names none
    config.decoder.adversarial_weight = 0.5  # inferred, times VQGAN's adaptive weight
    config.decoder.discriminator = "patch"  # published; inferred: PatchGAN of 3 layers, hinge
    config.decoder.discriminator_rate = 1.0
    config.decoder.adversarial_from = IMAGES // DECODER_BATCH  # inferred: it trains alone for an
    # epoch; A finetunes a discriminator too, and FLUX.2 was released without one
    config.decoder.optimizer = ConfigDict()
    config.decoder.optimizer.learning_rate = 1e-4  # inferred: Adam, as below
    config.decoder.optimizer.schedule = "constant"
    config.decoder.optimizer.b1 = 0.5
    config.decoder.optimizer.b2 = 0.9
    config.decoder.optimizer.weight_decay = 0.0
    config.decoder.optimizer.clip_norm = 0.0  # inferred: A names no clipping

    config.flow = ConfigDict()
    config.flow.method = "flow"
    config.flow.encode = "every_step"  # images; a cache holds latents already
    config.flow.steps = EPOCHS * IMAGES // BATCH  # calculated: 400,364
    config.flow.batch_size = BATCH
    config.flow.ema_decay = 0.9999  # inferred
    config.flow.label_dropout = 0.1  # inferred, SiT's
    config.flow.tangent_projection = True  # published
    config.flow.radial_weight = 0.0  # published: no radial term
    config.flow.time_density = "uniform"  # inferred; A's is not published
    config.flow.time_shift = 1.0  # inferred: none
    config.flow.log_every = 100
    config.flow.checkpoint_every = 5_000
    config.flow.preview_every = 5_000
    config.flow.optimizer = ConfigDict()
    config.flow.optimizer.learning_rate = 1e-4  # inferred, and the four below
    config.flow.optimizer.schedule = "constant"
    config.flow.optimizer.b1 = 0.9
    config.flow.optimizer.b2 = 0.999
    config.flow.optimizer.weight_decay = 0.0
    config.flow.optimizer.clip_norm = 0.0  # inferred: A names no clipping, and SiT has none

    config.sampler = ConfigDict()
    config.sampler.solver = "euler"  # published: along the exponential map
    config.sampler.steps = 250  # inferred
    config.sampler.guidance = 1.0  # published: 1.0, 1.5 and 2.0 are reported
    config.sampler.batch_size = 256

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # published: 50,000
    config.evaluation.features = "inception_fid"  # published: FID; inferred: which of its versions
    # (docs/systems/shared.md#evaluation)
    config.evaluation.pretrained = ""  # what sphere_jax.convert --network inception_fid wrote
    config.evaluation.lpips = ""  # LPIPS-AlexNet, for the report of the decoder

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
