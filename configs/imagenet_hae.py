"""HAE's autoencoder on ImageNet at 256 px: both stages of arXiv 2601.22904 (Tables 9 and 10).

docs/systems/hae.md#autoencoder-training. Put the images below data/imagenet/train/<class>/ and
data/imagenet/val/<class>/, and give the weights on the command line. DINOv3's licence has to be
accepted at its home (`python -m sphere_jax.convert --list`); the others come by --fetch:

    python -m sphere_jax.convert --network dinov3_vitl16_meta --from DINOV3.pth \\
        --out weights/v.safetensors
    python -m sphere_jax.convert --network dino_vits8 --fetch --out weights/dino.safetensors
    python -m sphere_jax.convert --network lpips_vgg16 --fetch --out weights/lpips.safetensors
    python -m sphere_jax.main --config=configs/imagenet_hae.py --workdir=runs/hae \\
        --config.tokenizer.pretrained_vit=weights/v.safetensors \\
        --config.align.lpips=weights/lpips.safetensors \\
        --config.decode.lpips=weights/lpips.safetensors \\
        --config.decode.dino=weights/dino.safetensors

`--dry_run` needs none of it. The flow of imagenet_hae_rfm.py follows in the same run with
`--config.stages=align,decode,flow`.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

rfm = runpy.run_path(str(Path(__file__).with_name("imagenet_hae_rfm.py")))

IMAGES = 1_281_167
BATCH = 512  # published
STEPS_PER_EPOCH = IMAGES // BATCH


def get_config():
    flow = rfm["get_config"]()
    config = ConfigDict()
    config.seed = 0
    config.stages = ("align", "decode")

    config.data = ConfigDict()
    config.data.source = "folder"
    config.data.path = "data/imagenet"
    config.data.image_size = 256
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.flip = True  # inferred

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "hae"
    config.tokenizer.vit = "dinov3_vitl16_meta"  # published
    config.tokenizer.pretrained_vit = ""
    config.tokenizer.stem = "conv"  # published; "patch" is the paper's control
    config.tokenizer.stem_norm = "trms2d"  # published: the paper's; released: "sample_rms"
    config.tokenizer.decoder_norm = "trms2d"  # as above
    config.tokenizer.attention_norm = "trms2d"  # as above; released: "none", by accident
    config.tokenizer.compute_dtype = "bfloat16"  # published
    config.tokenizer.unroll = False  # one scanned layer: quick to compile
    config.tokenizer.remat = "blocks"

    config.space = flow.space

    config.align = ConfigDict()
    config.align.method = "hae"
    config.align.encoder = "train"  # published: stem and decoder
    config.align.steps = 20 * STEPS_PER_EPOCH  # published: 20 epochs
    config.align.batch_size = BATCH
    config.align.most_per_device = 8  # 32 do not fit a TPU v5e
    config.align.ema_decay = 0.9999  # published
    config.align.l1_weight = 1.0  # published
    config.align.lpips = ""  # LPIPS-VGG weights; published: with it
    config.align.lpips_weight = 1.0  # published
    config.align.align = "cosine"  # published; "mse" is the paper's control
    config.align.align_weight = 0.5  # published
    config.align.log_every = 100
    config.align.checkpoint_every = 5_000
    config.align.preview_every = 5_000
    config.align.measured = 5_000
    config.align.optimizer = ConfigDict()
    config.align.optimizer.learning_rate = 1e-5  # published
    config.align.optimizer.b1 = 0.9  # published
    config.align.optimizer.b2 = 0.999  # published
    config.align.optimizer.weight_decay = 0.0  # published
    config.align.optimizer.clip_norm = 0.0  # inferred: HAE names no clipping here, nor below

    config.decode = ConfigDict()
    config.decode.method = "hae"
    config.decode.encoder = "frozen"  # published
    config.decode.align = "none"  # published
    config.decode.steps = 40 * STEPS_PER_EPOCH  # published: 40 epochs
    config.decode.batch_size = BATCH
    config.decode.most_per_device = 8
    config.decode.ema_decay = 0.9975  # published
    config.decode.l1_weight = 1.0  # published
    config.decode.lpips = ""  # LPIPS-VGG weights; published: with it
    config.decode.lpips_weight = 1.0  # published
    config.decode.latent_noise = 0.8  # published: tau at the first epoch
    config.decode.latent_noise_end = 1.2  # published: from epoch 20 on
    config.decode.latent_noise_ramp = 20 * STEPS_PER_EPOCH
    config.decode.noise_per = "batch"  # published
    config.decode.adversarial_weight = 0.5  # published
    config.decode.adaptive = False  # inferred: RAE has it, HAE does not say
    config.decode.discriminator = "dino_released"  # published
    config.decode.norm_group = 1  # RAE's; StyleGAN-T: 8
    config.decode.augment = True  # published
    config.decode.dino = ""  # weights of DINO ViT-S/8
    config.decode.discriminator_from = 0  # published: alone for 2 epochs
    config.decode.adversarial_from = 2 * STEPS_PER_EPOCH
    config.decode.log_every = 100
    config.decode.checkpoint_every = 5_000
    config.decode.preview_every = 5_000
    config.decode.measured = 5_000
    config.decode.optimizer = ConfigDict()
    config.decode.optimizer.learning_rate = 5e-5  # published, of both players
    config.decode.optimizer.b1 = 0.5  # published
    config.decode.optimizer.b2 = 0.9  # published
    config.decode.optimizer.weight_decay = 0.0  # published
    config.decode.optimizer.clip_norm = 0.0

    config.model = flow.model
    config.flow = flow.flow
    config.flow.encode = "every_step"  # 1.05 MB an image: none is kept
    config.sampler = flow.sampler

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # the default features are for small images
    config.evaluation.features = "inception_fid"
    config.evaluation.pretrained = ""  # its weights, for rFID
    config.evaluation.lpips = ""  # LPIPS-AlexNet weights

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
