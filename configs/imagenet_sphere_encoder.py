"""Sphere Encoder on ImageNet at 256 px with the released script's settings.

docs/systems/sphere_encoder.md. The script trains size base; the released models are large and
xlarge, with settings that may differ. Put the images below data/imagenet/train/<class>/ and
data/imagenet/val/<class>/. animal_faces_, flowers_ and cifar10_sphere_encoder.py are the other
published data sets.
"""

from ml_collections import ConfigDict

IMAGES = 1_281_167
BATCH = 256


def get_config():
    steps_per_epoch = IMAGES // BATCH
    config = ConfigDict()
    config.seed = 0
    config.stages = ("sphere_encoder",)

    config.data = ConfigDict()
    config.data.source = "folder"  # class folders of images
    config.data.path = "data/imagenet"
    config.data.image_size = 256
    config.data.channels = 3
    config.data.num_classes = 1000
    config.data.flip = True  # published

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "sphere_encoder"
    config.tokenizer.size = "large"  # published: a released model, 950M; the script: "base"
    config.tokenizer.patch = 8  # published: 1,024 tokens
    config.tokenizer.latent_channels = 64  # published: 3 x 256^2 / (32^2 x 3)
    config.tokenizer.mixer_depth = 4  # published
    config.tokenizer.pixel_head = "linear"  # published
    config.tokenizer.conditional = True  # published
    config.tokenizer.compute_dtype = "bfloat16"  # published: autocast
    config.tokenizer.unroll = False  # one scanned layer: quick to compile
    config.tokenizer.remat = "blocks"

    config.sphere_encoder = ConfigDict()
    config.sphere_encoder.method = "sphere_encoder"
    config.sphere_encoder.steps = 800 * steps_per_epoch  # published: 800 epochs
    config.sphere_encoder.batch_size = BATCH  # published: that of the learning rate
    config.sphere_encoder.most_per_device = 8  # 16 do not fit a TPU v5e
    config.sphere_encoder.ema_decay = 0.9997  # published
    config.sphere_encoder.weights = "raw"  # published: samples use the raw weights
    config.sphere_encoder.log_every = 100
    config.sphere_encoder.checkpoint_every = 5000
    config.sphere_encoder.preview_every = 5000
    config.sphere_encoder.max_angle = 85.0  # published
    config.sphere_encoder.strata = 16  # published: the batch of one device
    config.sphere_encoder.hard_mix = "released"
    config.sphere_encoder.hard_fraction = 0.1  # published
    config.sphere_encoder.label_dropout = 0.1  # published
    config.sphere_encoder.encoder_rate = 0.1  # published
    config.sphere_encoder.reconstruction_weight = 50.0  # w1, published, as the four below
    config.sphere_encoder.reconstruction_perceptual = 1.0
    config.sphere_encoder.consistency_weight = 25.0
    config.sphere_encoder.consistency_perceptual = 1.0
    config.sphere_encoder.latent_weight = 0.1
    config.sphere_encoder.lpips = ""  # LPIPS-VGG weights (.safetensors); published: with it
    config.sphere_encoder.convnext = ""  # ConvNeXt-S weights (.safetensors); published: with it
    config.sphere_encoder.optimizer = ConfigDict()
    config.sphere_encoder.optimizer.learning_rate = 1e-4  # published, at batch 256
    config.sphere_encoder.optimizer.schedule = "cosine"
    config.sphere_encoder.optimizer.warmup = 5 * steps_per_epoch + 1  # published: (k + 1) / (w + 1)
    config.sphere_encoder.optimizer.hold = 5 * steps_per_epoch  # published: ends one warm-up early
    config.sphere_encoder.optimizer.final_fraction = 0.01  # published: 1e-6
    config.sphere_encoder.optimizer.b2 = 0.95  # published
    config.sphere_encoder.optimizer.clip_norm = 1.0  # published

    config.sampler = ConfigDict()
    config.sampler.steps = 4  # published: 1 and 4
    config.sampler.guidance = 1.4  # published
    config.sampler.guidance_at = "combo"  # published
    config.sampler.schedule = "fixed"  # published
    config.sampler.share_noise = True  # published
    config.sampler.batch_size = 64

    config.evaluation = ConfigDict()
    config.evaluation.samples = 0  # the default features and class SVM are for small images

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices
    config.mesh.fsdp = 0  # as many as divide the devices and 16
    return config
