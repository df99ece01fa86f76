"""System A's decoder at full size: that of the FLUX.2 VAE, adapted to one sphere a token.

The first stage of imagenet_slerp.py, alone (docs/systems/spherical_flow.md#decoder-adaptation).
Give the weights on the command line:

    python -m sphere_jax.main --config=configs/imagenet_decoder.py --workdir=runs/decoder \\
        --config.tokenizer.pretrained=FLUX2.safetensors --config.decoder.lpips=LPIPS.safetensors

`--config.space.path=linear` is the control, FT-vanilla: the same without projection.
"""

import runpy
from pathlib import Path

slerp = runpy.run_path(str(Path(__file__).with_name("imagenet_slerp.py")))


def get_config():
    config = slerp["get_config"]()
    config.stages = ("decoder",)
    return config
