"""System A on VA-VAE latents of ImageNet-256, SiT-B/1 (methods.md A.2, A.6).

All but the tokenizer and the patch is imagenet_slerp.py. `--config.model.size=XL` and
`--config.space.path=linear` are published too.
"""

import runpy
from pathlib import Path

flux2 = runpy.run_path(str(Path(__file__).with_name("imagenet_slerp.py")))


def get_config():
    config = flux2["get_config"]()
    # Published: f16, latents 16x16x32. LightningDiT normalises each channel by statistics of a
    # sample of latents; whether A did before it projected is not said, and here nothing does.
    config.tokenizer.kind = "vavae"
    config.tokenizer.pretrained = ""  # what sphere_jax.convert --network vavae wrote
    config.model.patch = 1  # published: 256 model tokens here too
    return config
