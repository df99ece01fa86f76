"""SiT-XL/2 as published (arXiv 2401.08740): the linear flow on latents of Stable Diffusion's VAE.

The Euclidean baseline that system A's network comes from. Published values are those of SiT's
training and sampling scripts. Published FID-50K with this sampler: 2.06 at guidance 1.5. For the
released weights, `--config.flow.steps=0 --config.flow.pretrained=FILE` with what sphere_jax.convert
--network sit_xl_2 wrote.
"""

import runpy
from pathlib import Path

slerp = runpy.run_path(str(Path(__file__).with_name("imagenet_slerp_sd.py")))
EPOCHS = 1_400  # published


def get_config():
    config = slerp["get_config"]()
    config.stages = ("flow",)
    config.data.flip = True  # published
    config.data.resize = "adm"  # published
    config.tokenizer.latents = "sample"  # published: drawn anew in every step
    config.tokenizer.compute_dtype = "bfloat16"  # published: float32. See docs/bf16.md
    config.space.path = "linear"  # published
    config.model.size = "XL"  # published
    config.model.patch = 2  # published
    config.model.learn_sigma = True  # published
    config.model.parameterization = "data_at_one"  # published: t = 1 is data
    config.model.compute_dtype = "bfloat16"  # published: float32
    config.flow.batch_size = 256  # published
    config.flow.steps = EPOCHS * slerp["flux2"]["IMAGES"] // 256  # calculated: 7,006,382
    config.flow.ema_decay = 0.9999  # published
    config.flow.label_dropout = 0.1  # published
    config.flow.time_density = "uniform"  # published
    config.flow.optimizer.learning_rate = 1e-4  # published: AdamW, constant, as the three below
    config.flow.optimizer.b1 = 0.9
    config.flow.optimizer.b2 = 0.999
    config.flow.optimizer.weight_decay = 0.0
    config.flow.optimizer.clip_norm = 0.0  # published: none
    config.sampler.solver = "euler_maruyama"  # published; its default for the ODE is "dopri5"
    config.sampler.steps = 250  # published
    config.sampler.last_step = 0.04  # published: a mean
    config.sampler.guidance = 1.5  # published
    config.sampler.guidance_channels = 3  # published: the others keep the label's prediction
    return config
