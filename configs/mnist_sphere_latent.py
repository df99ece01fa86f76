"""Sphere Latent Encoder on 4,000 MNIST digits: few-step generation inside a VAE's latents.

VAE -> decoder finetuned on the global sphere -> denoiser without a time input
(docs/systems/sphere_latent.md). Data, tokenizer and the first two stages are mnist_slerp.py's.
Sizes and step counts are choices for this data set (inferred: no paper trains on it).
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

flow = runpy.run_path(str(Path(__file__).with_name("mnist_slerp.py")))


def get_config():
    base = flow["get_config"]()
    config = ConfigDict()
    config.seed = 0
    config.stages = ("vae", "decoder", "sphere_latent")

    config.data = base.data  # the same digits
    config.tokenizer = base.tokenizer  # the same VAE, f8: 32x32x1 images, 4x4x16 latents

    config.space = ConfigDict()
    config.space.sphere = "global"  # the whole latent on one sphere, RMS 1

    config.model = ConfigDict()
    config.model.name = "denoiser"  # no time, no noise level
    config.model.width = 128
    config.model.depth = 6
    config.model.heads = 4
    config.model.patch = 1  # published

    config.vae = base.vae  # trained and finetuned as there
    config.decoder = base.decoder  # encoder frozen, latents projected: here on the global sphere

    config.sphere_latent = ConfigDict()
    config.sphere_latent.method = "sphere_latent"
    config.sphere_latent.steps = 700
    config.sphere_latent.batch_size = 64
    config.sphere_latent.ema_decay = 0.995
    config.sphere_latent.log_every = 100
    config.sphere_latent.preview_every = 500
    config.sphere_latent.label_dropout = 0.1  # inferred: not published
    config.sphere_latent.level_mean = 0.5  # inferred: logit-normal is published, its parameters not
    config.sphere_latent.level_std = 1.0  # inferred
    config.sphere_latent.noise_map = "interpolation"  # inferred: 85 degrees erase L = 256 values
    config.sphere_latent.distance = "l1"  # inferred: the norm's symbol is lost in our copy
    config.sphere_latent.cosine = "latent"  # inferred: over the flattened latent
    config.sphere_latent.target = "projected"  # inferred: sections 4.1 and 4.2 of B differ
    config.sphere_latent.inputs = "low"  # inferred
    config.sphere_latent.distance_weight = 1.0  # inferred, as the three below
    config.sphere_latent.cosine_weight = 1.0
    config.sphere_latent.reconstruction_weight = 1.0
    config.sphere_latent.consistency_weight = 1.0
    config.sphere_latent.optimizer = ConfigDict()
    config.sphere_latent.optimizer.learning_rate = 2e-3
    config.sphere_latent.optimizer.schedule = "cosine"
    config.sphere_latent.optimizer.warmup = 50
    config.sphere_latent.optimizer.b2 = 0.95  # inferred: RAE's second stage
    config.sphere_latent.optimizer.clip_norm = 1.0  # inferred: the same

    config.sampler = ConfigDict()
    config.sampler.steps = 4  # published: 4 and 6
    config.sampler.guidance = 1.5  # inferred: sweep 1 to 2
    config.sampler.schedule = "decreasing"  # inferred: the strength falls with the steps
    config.sampler.share_noise = True  # inferred

    config.evaluation = ConfigDict()
    config.evaluation.samples = 1000
    config.evaluation.at_steps = (1, 2, 8)

    config.mesh = base.mesh
    return config
