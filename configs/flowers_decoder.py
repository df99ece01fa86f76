"""TAEF2's decoder adapted to one sphere a token, on photographs of flowers at 128 px.

docs/systems/spherical_flow.md#decoder-adaptation, in half an hour on one CPU core; docs/decoder.md
has the results of this recipe and of others. Give the data and the weights on the command line:

    python -m sphere_jax.main --config=configs/flowers_decoder.py --workdir=runs/flowers_decoder \\
        --config.data.path=FLOWERS.npz --config.tokenizer.pretrained=TAEF2.safetensors \\
        --config.decoder.lpips=LPIPS_VGG16.safetensors

`--config.space.path=linear` is the control, FT-vanilla: the same without projection.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.stages = ("decoder",)

    config.data = ConfigDict()
    config.data.source = "npz"
    config.data.path = ""
    config.data.image_size = 128
    config.data.channels = 3
    config.data.num_classes = 12
    config.data.flip = True

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "tiny_vae"
    config.tokenizer.kind = "taef2"  # a tiny stand-in for A's FLUX.2 VAE; f8, 32 channels as there
    config.tokenizer.pretrained = ""  # what sphere_jax.convert wrote
    config.tokenizer.pretrained_statistics = ""  # what prepare statistics wrote: inferred
    # (docs/systems/spherical_flow.md#pitfalls): normalise, then project; "": no normalisation

    config.space = ConfigDict()
    config.space.path = "slerp"
    config.space.sphere = "token"  # published
    config.space.radius = 0.0  # published: sqrt(d)

    config.decoder = ConfigDict()
    config.decoder.method = "decoder"  # published: encoder frozen, KL dropped
    config.decoder.steps = 150
    config.decoder.batch_size = 4
    config.decoder.ema_decay = 0.98
    config.decoder.log_every = 10
    config.decoder.checkpoint_every = 50
    config.decoder.preview_every = 50
    config.decoder.target = "images"  # published; "original": the decoder's images of raw latents
    config.decoder.l1_weight = 1.0  # published: L1 and LPIPS; inferred: the weights
    config.decoder.l2_weight = 0.0
    config.decoder.lpips = ""  # LPIPS-VGG weights: without them L1 alone, which blurs
    config.decoder.lpips_weight = 1.0  # inferred
    config.decoder.adversarial_weight = 0.0  # published: on; TAEF2 has no discriminator, and an
    # untrained one learns little in 150 steps (0.5 turns it on)
    config.decoder.discriminator = "patch"
    config.decoder.adversarial_from = 0
    config.decoder.optimizer = ConfigDict()
    config.decoder.optimizer.learning_rate = 5e-4  # inferred, as all below
    config.decoder.optimizer.schedule = "cosine"
    config.decoder.optimizer.warmup = 10
    config.decoder.optimizer.clip_norm = 1.0

    config.evaluation = ConfigDict()
    config.evaluation.features = "small_classifier"  # "efficientnet_lite0", where given:
    config.evaluation.pretrained = ""  # its weights, for a Frechet distance
    config.evaluation.lpips = ""  # LPIPS-AlexNet weights
    return config
