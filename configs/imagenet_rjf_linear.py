"""RJF's control: linear flow matching in R^768 on the same RAE latents (docs/systems/hae.md#rjf).

Published, unguided, number of epochs not given: FID 21.64, against 4.95 of imagenet_rjf.py. All
else is that config's (inferred), but velocities are not scaled to unit spheres, nor are the
clipping norm and eps scaled by 768.
"""

import runpy
from pathlib import Path

rjf = runpy.run_path(str(Path(__file__).with_name("imagenet_rjf.py")))


def get_config():
    config = rjf["get_config"]()
    config.space.path = "linear"  # published: plain flow matching
    config.model.parameterization = "noise_at_one"
    config.flow.loss_weight = "none"  # published: Jacobi weights need a sphere
    config.flow.tangent_projection = False
    config.flow.optimizer.eps = 1e-8  # published
    config.flow.optimizer.clip_norm = 1.0  # published
    config.sampler.decode_radius = 0.0
    return config
