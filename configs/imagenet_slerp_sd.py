"""System A on latents of Stable Diffusion's VAE, SiT-B/2: inferred, A does not report this one.

All but the tokenizer and SiT's own settings for it is imagenet_slerp.py. The baseline is
`"--config.stages=(flow,)" --config.space.path=linear`; imagenet_sit.py is SiT as published.
Directions in 4 dimensions carry less than those in 16 or 32 (docs/systems/shared.md#notation: token
norms of noise scatter by 1 / sqrt(2 d), a third here).
"""

import runpy
from pathlib import Path

flux2 = runpy.run_path(str(Path(__file__).with_name("imagenet_slerp.py")))


def get_config():
    config = flux2["get_config"]()
    config.tokenizer.kind = "sd"  # f8, latents 32x32x4, sqrt(d) = 2
    config.tokenizer.latents = "sample"  # inferred: SiT's, published, is drawn anew in every step
    config.tokenizer.pretrained = ""  # what sphere_jax.convert --network sd_vae wrote
    config.model.learn_sigma = True  # inferred: SiT's, published: 8 output channels, 4 unused
    config.sampler.guidance_channels = 3  # inferred: SiT's, published; acts with a guidance above 1
    return config
