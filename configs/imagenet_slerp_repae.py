"""System A on latents of the REPA-E FLUX.1 VAE of ImageNet-256, SiT-B/2
(docs/systems/spherical_flow.md#tensors, #network).

All but the tokenizer is imagenet_slerp.py. The baseline, published too, is
`"--config.stages=(flow,)" --config.space.path=linear`. Token norms are 0.35 sqrt(d) here
(published): projected latents need an adapted decoder before they look like anything.
"""

import runpy
from pathlib import Path

flux2 = runpy.run_path(str(Path(__file__).with_name("imagenet_slerp.py")))


def get_config():
    config = flux2["get_config"]()
    # Published: f8, latents 32x32x16, sqrt(d) = 4. Inferred: FLUX.1's shift and scale.
    config.tokenizer.kind = "repae_flux1"
    config.tokenizer.pretrained = ""  # what sphere_jax.convert --network repae_flux1_vae wrote
    return config
