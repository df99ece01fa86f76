"""System A on VA-VAE latents of ImageNet-256, SiT-B/1 (docs/systems/spherical_flow.md#tensors,
#network).

All but the tokenizer and the patch is imagenet_slerp.py. `--config.model.size=XL` is published too,
and so is the baseline, `"--config.stages=(flow,)" --config.space.path=linear`.
"""

import runpy
from pathlib import Path

flux2 = runpy.run_path(str(Path(__file__).with_name("imagenet_slerp.py")))


def get_config():
    config = flux2["get_config"]()
    config.tokenizer.kind = "vavae"  # published: f16, latents 16x16x32
    # Inferred: samples, as LightningDiT has them (published: one an image, drawn once; here anew).
    config.tokenizer.latents = "sample"
    config.tokenizer.pretrained = ""  # what sphere_jax.convert --network vavae wrote
    # Inferred (docs/systems/spherical_flow.md#tensors, #pitfalls): give LightningDiT's statistics
    # of the channels, by which latents are normalised before they are projected: sphere_jax.convert
    # --network vavae_statistics.
    config.tokenizer.pretrained_statistics = ""
    config.model.patch = 1  # published: 256 model tokens here too
    return config
