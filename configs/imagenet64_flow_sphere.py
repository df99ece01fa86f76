"""flow-sphere on ImageNet at 64 px with the settings of the public code.

docs/systems/flow_sphere.md. All but the size is imagenet_flow_sphere.py.
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_flow_sphere.py")))


def get_config():
    config = imagenet["get_config"]()
    config.data.image_size = 64

    config.tokenizer.width = 512  # published: 58.9M
    config.tokenizer.hidden = 2048  # published
    config.tokenizer.patch = 4  # published: 256 tokens
    config.tokenizer.latent_channels = 16  # published: 512 / 32
    config.tokenizer.normalize = True  # published

    config.flow_sphere.warmup = 50_000  # published
    config.flow_sphere.batch_size = 6  # published: one small GPU; pods need a multiple of theirs
    config.flow_sphere.reconstruction_weight = 10.0  # published
    config.flow_sphere.consistency_weight = 10.0  # published
    config.flow_sphere.latent_weight = 0.1  # published
    config.flow_sphere.width = 512  # published: 40.9M
    config.flow_sphere.depth = 8  # published
    config.flow_sphere.optimizer.learning_rate = 2e-4  # published
    config.flow_sphere.optimizer.final_fraction = 1e-6 / 2e-4  # published
    return config
