"""RAE's decoder trained on ImageNet at 256 px with the published settings (arXiv 2510.11690).

docs/systems/sphere_latent.md#decoder-training. The encoder is DINOv2-B with registers, frozen. Put
the images below data/imagenet/train/<class>/ and data/imagenet/val/<class>/, and give the weights:

    python -m sphere_jax.convert --network rae_encoder --fetch --out weights/encoder.safetensors
    python -m sphere_jax.convert --network dino_vits8 --fetch --out weights/dino.safetensors
    python -m sphere_jax.convert --network lpips_vgg16 --fetch --out weights/lpips.safetensors
    python -m sphere_jax.main --config=configs/imagenet_rae_decoder.py --workdir=runs/rae \\
        --config.tokenizer.pretrained_encoder=weights/encoder.safetensors \\
        --config.decode.lpips=weights/lpips.safetensors \\
        --config.decode.dino=weights/dino.safetensors

Whitened: `python -m sphere_jax.prepare statistics --config=configs/imagenet_rae_decoder.py
--config.tokenizer.whiten=True --out=S.safetensors`, then `--config.tokenizer.whiten=True
--config.tokenizer.pretrained_statistics=S.safetensors`. `--dry_run` needs none of it.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
BATCH = 512  # published
STEPS_PER_EPOCH = IMAGES // BATCH


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("decode",)

    config.data = ConfigDict()
    config.data.source = "folder"
    config.data.path = "data/imagenet"
    config.data.image_size = 256
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.flip = False  # published: no flips, but
    config.data.random_crop = (384, 384)  # published: random crops of 256 out of 384

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "rae"
    config.tokenizer.decoder = "xlarge"  # published: ViT-XL
    config.tokenizer.train_decoder = True
    config.tokenizer.whiten = False  # published for the training of decoders
    config.tokenizer.pretrained_encoder = ""
    config.tokenizer.compute_dtype = "bfloat16"  # inferred
    config.tokenizer.remat = "products"

    config.decode = ConfigDict()
    config.decode.method = "rae_decoder"
    config.decode.steps = 16 * STEPS_PER_EPOCH  # published
    config.decode.batch_size = BATCH
    config.decode.ema_decay = 0.9978  # published
    config.decode.l1_weight = 0.5  # published: 1.0 of images in [0, 1], which are in [-1, 1] here
    config.decode.lpips = ""  # LPIPS-VGG weights; published: with it
    config.decode.lpips_weight = 1.0  # published
    config.decode.latent_noise = 0.8  # published: z + s n, s = 0.8 U(0, 1)
    config.decode.noise_per = "sample"  # published
    config.decode.adversarial_weight = 0.75  # published
    config.decode.adaptive = True  # published
    config.decode.discriminator = "dino_released"  # published
    config.decode.norm_group = 1  # published: the released code's
    config.decode.augment = True  # published
    config.decode.dino = ""  # weights of DINO ViT-S/8
    config.decode.discriminator_from = 6 * STEPS_PER_EPOCH  # published
    config.decode.adversarial_from = 8 * STEPS_PER_EPOCH  # published
    config.decode.log_every = 100
    config.decode.checkpoint_every = 5_000
    config.decode.preview_every = 5_000
    config.decode.measured = 5_000
    config.decode.optimizer = ConfigDict()
    config.decode.optimizer.learning_rate = 2e-4  # published, of both players
    config.decode.optimizer.schedule = "cosine"  # published, as the three below
    config.decode.optimizer.warmup = STEPS_PER_EPOCH
    config.decode.optimizer.final_fraction = 0.1
    config.decode.optimizer.b1 = 0.9
    config.decode.optimizer.b2 = 0.95
    config.decode.optimizer.weight_decay = 0.0
    config.decode.optimizer.clip_norm = 0.0  # inferred: none is named

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0
    config.evaluation.features = "inception_fid"
    config.evaluation.pretrained = ""  # its weights, for rFID
    config.evaluation.lpips = ""  # LPIPS-AlexNet weights

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
