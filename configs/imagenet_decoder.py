"""System A's decoder at full size: that of the FLUX.2 VAE, adapted to one sphere a token.

methods.md A.5: encoder frozen, latents projected, decoder and discriminator finetuned on ImageNet.
Which losses and how long is published, weights, rates and batch are not: inferred, as A.5
recommends. Data and tokenizer are those of imagenet_slerp.py. Give the weights on the command line:

    python -m sphere_jax.main --config=configs/imagenet_decoder.py --workdir=runs/decoder \\
        --config.tokenizer.pretrained=FLUX2.safetensors --config.decoder.lpips=LPIPS.safetensors

`--config.space.path=linear` is the control, FT-vanilla: the same without projection.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
EPOCHS = 5  # published
BATCH = 128  # inferred


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("decoder",)

    config.data = ConfigDict()
    config.data.source = "folder"  # class folders of images
    config.data.path = "data/imagenet"
    config.data.image_size = 256  # published
    config.data.resize = "adm"  # inferred: the usual centre crop
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.flip = True  # inferred
    config.data.threads = 8

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "kl_vae"
    config.tokenizer.kind = "flux2"  # published: f8, latents 32x32x32; brings its own statistics
    config.tokenizer.packed = False  # published: d = 32, so not packed to 128
    config.tokenizer.pretrained = ""  # what sphere_jax.convert --network flux2_vae wrote
    config.tokenizer.compute_dtype = "bfloat16"  # inferred; projection and losses stay float32

    config.space = ConfigDict()
    config.space.path = "slerp"
    config.space.sphere = "token"  # published: per latent position
    config.space.radius = 0.0  # published: sqrt(d) = 5.66

    config.decoder = ConfigDict()
    config.decoder.method = "decoder"  # published: encoder frozen, KL dropped
    config.decoder.steps = EPOCHS * IMAGES // BATCH  # calculated: 50,045
    config.decoder.batch_size = BATCH
    config.decoder.ema_decay = 0.9975  # inferred: that of D's decoder
    config.decoder.log_every = 100
    config.decoder.checkpoint_every = 1_000
    config.decoder.preview_every = 1_000
    config.decoder.target = "images"  # published; "original" is ours: docs/decoder.md
    config.decoder.l1_weight = 1.0  # published: L1, LPIPS and a patch discriminator
    config.decoder.l2_weight = 0.0
    config.decoder.lpips = ""  # LPIPS-VGG: what sphere_jax.convert --network lpips_vgg16 wrote
    config.decoder.lpips_weight = 1.0  # inferred
    config.decoder.latent_noise = 0.0  # published: none
    config.decoder.adversarial_weight = 0.5  # inferred, times VQGAN's adaptive weight
    config.decoder.discriminator = "patch"  # inferred: PatchGAN of 3 layers, hinge
    config.decoder.discriminator_rate = 1.0
    config.decoder.adversarial_from = IMAGES // BATCH  # inferred: it learns alone for an epoch,
    # since no released discriminator comes with FLUX.2
    config.decoder.optimizer = ConfigDict()
    config.decoder.optimizer.learning_rate = 1e-4  # inferred: Adam, as below
    config.decoder.optimizer.schedule = "constant"
    config.decoder.optimizer.b1 = 0.5
    config.decoder.optimizer.b2 = 0.9
    config.decoder.optimizer.weight_decay = 0.0

    config.evaluation = ConfigDict()
    config.evaluation.features = "small_classifier"  # "inception_fid", where given:
    config.evaluation.pretrained = ""  # its weights, for rFID
    config.evaluation.lpips = ""  # LPIPS-AlexNet weights

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 1
    return config
