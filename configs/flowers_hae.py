"""HAE from nothing on small photographs: a ViT of the data's own, both stages, and its flow.

docs/systems/hae.md#small-and-from-nothing. Give the data on the command line, an npz, a folder or
records of photographs with labels:

    python -m sphere_jax.main --config=configs/flowers_hae.py --workdir=runs/flowers_hae \\
        --config.data.path=FLOWERS.npz

CIFAR-10 instead: `--config.data.source=cifar10 --config.data.image_size=32
--config.data.num_classes=10 --config.tokenizer.patch=4 --config.tokenizer.stem_widths=32
--config.tokenizer.decoder_widths=32,64,128 --config.tokenizer.decoder_depths=1,1,2`. A pretrained
ViT: `--config.stages=align,decode,flow --config.tokenizer.vit=dinov3_vits16plus
--config.tokenizer.pretrained_vit=DINOV3.safetensors` with widths for patches of 16.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("teacher", "align", "decode", "flow")

    config.data = ConfigDict()
    config.data.source = "npz"
    config.data.path = ""
    config.data.image_size = 64
    config.data.channels = 3
    config.data.num_classes = 12
    config.data.flip = True

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "hae"
    config.tokenizer.vit = ""  # published: DINOv3 ViT-L/16; here that of the first stage
    config.tokenizer.vit_width = 128
    config.tokenizer.vit_depth = 6
    config.tokenizer.vit_heads = 4
    config.tokenizer.patch = 8  # 8x8 tokens of 128 channels
    config.tokenizer.stem = "conv"  # published; "patch" is the control
    config.tokenizer.stem_widths = (32, 64)
    config.tokenizer.decoder_widths = (16, 32, 64, 128)  # published: 256 to 1024
    config.tokenizer.decoder_depths = (1, 1, 1, 2)
    config.tokenizer.attention_levels = 2  # published

    config.space = ConfigDict()
    config.space.path = "slerp"  # published
    config.space.sphere = "token"

    # A classifier, not self-distillation: of so few images it learns features in minutes, and the
    # data have labels.
    config.teacher = ConfigDict()
    config.teacher.method = "vit_classifier"
    config.teacher.steps = 1000
    config.teacher.batch_size = 32
    config.teacher.ema_decay = 0.99
    config.teacher.optimizer = ConfigDict()
    config.teacher.optimizer.learning_rate = 1e-3
    config.teacher.optimizer.schedule = "cosine"
    config.teacher.optimizer.warmup = 50
    config.teacher.optimizer.weight_decay = 0.05
    config.teacher.optimizer.clip_norm = 1.0

    config.align = ConfigDict()  # published losses; rates and lengths are of this size
    config.align.method = "hae"
    config.align.steps = 1500
    config.align.batch_size = 16
    config.align.ema_decay = 0.995
    config.align.l1_weight = 1.0
    config.align.lpips = ""  # published: on. LPIPS-VGG weights
    config.align.align = "cosine"  # "mse" and "none" are controls
    config.align.align_weight = 0.5
    config.align.measured = 1000  # held-out images at most, as below
    config.align.optimizer = ConfigDict()
    config.align.optimizer.learning_rate = 1e-3
    config.align.optimizer.schedule = "cosine"
    config.align.optimizer.warmup = 50
    config.align.optimizer.clip_norm = 1.0

    config.decode = ConfigDict()
    config.decode.method = "hae"
    config.decode.encoder = "frozen"
    config.decode.align = "none"
    config.decode.steps = 1200
    config.decode.batch_size = 16
    config.decode.ema_decay = 0.99  # published: 0.9975
    config.decode.lpips = ""
    # Published for DINOv3-L's tokens, of norm 14 (an RMS of 0.44 a channel). Those here have an RMS
    # of 0.98 (measured), so that this noise is about half as strong.
    config.decode.latent_noise = 0.8
    config.decode.latent_noise_end = 1.2
    config.decode.latent_noise_ramp = 600
    config.decode.noise_per = "batch"
    config.decode.adversarial_weight = 0.1  # published: 0.5 of the one on DINO
    config.decode.discriminator = "patch"  # "dino_released" where there are weights of DINO
    config.decode.discriminator_width = 24
    config.decode.discriminator_from = 300
    config.decode.adversarial_from = 450
    config.decode.measured = 1000
    config.decode.optimizer = ConfigDict()
    config.decode.optimizer.learning_rate = 5e-4
    config.decode.optimizer.b1 = 0.5  # published
    config.decode.optimizer.b2 = 0.9
    config.decode.optimizer.clip_norm = 1.0

    config.flow = ConfigDict()
    config.flow.steps = 2500
    config.flow.batch_size = 32
    config.flow.ema_decay = 0.995
    config.flow.time_density = "logit_normal"  # published, as the shift and the radial weight
    config.flow.time_shift = 0.0
    config.flow.radial_weight = 0.1
    config.flow.optimizer = ConfigDict()
    config.flow.optimizer.learning_rate = 3e-3
    config.flow.optimizer.schedule = "cosine"
    config.flow.optimizer.warmup = 100
    config.flow.optimizer.clip_norm = 1.0

    config.model = ConfigDict()
    config.model.name = "lightning_dit"  # published: XL/1
    config.model.width = 192
    config.model.depth = 4
    config.model.heads = 6

    config.sampler = ConfigDict()
    config.sampler.steps = 50  # published
    config.sampler.decode_radius = 0.0  # sweep it: python -m sphere_jax.evaluate --sweep

    config.evaluation = ConfigDict()
    config.evaluation.samples = 240
    return config
