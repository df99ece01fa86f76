"""flow-sphere on CIFAR-10 with the settings of the public code: for a GPU.

docs/systems/flow_sphere.md. All but what small images change is imagenet_flow_sphere.py. On a CPU,
take less of everything:

    --config.tokenizer.width=96 --config.tokenizer.hidden=192 --config.tokenizer.patch=4
    --config.tokenizer.latent_channels=24 --config.tokenizer.depth=3 --config.tokenizer.heads=3
    --config.tokenizer.compute_dtype=float32 --config.tokenizer.unroll=True
    --config.flow_sphere.width=96 --config.flow_sphere.hidden=192 --config.flow_sphere.depth=3
    --config.flow_sphere.steps=5000 --config.flow_sphere.warmup=500
    --config.flow_sphere.batch_size=64 --config.flow_sphere.weights=ema
    --config.flow_sphere.ema_decay=0.998 --config.flow_sphere.checkpoint_every=500
    --config.flow_sphere.preview_every=500 --config.evaluation.samples=1000
"""

import runpy
from pathlib import Path

imagenet = runpy.run_path(str(Path(__file__).with_name("imagenet_flow_sphere.py")))


def get_config():
    config = imagenet["get_config"]()
    config.data.source = "cifar10"  # the official binary version, or one packed .npz
    config.data.path = "data/cifar-10-batches-bin"
    config.data.image_size = 32
    config.data.num_classes = 10

    config.tokenizer.width = 256  # published: 14.8M
    config.tokenizer.head_dim = 32  # published
    config.tokenizer.hidden = 512  # published
    config.tokenizer.patch = 2  # published: 256 tokens
    config.tokenizer.latent_channels = 8  # published: 256 / 32
    config.tokenizer.normalize = True  # published
    config.tokenizer.remat = "none"

    config.flow_sphere.steps = 100_000  # published
    config.flow_sphere.batch_size = 256  # published
    config.flow_sphere.max_angle = 80.0  # published
    config.flow_sphere.hard_angle = 85.0  # published
    config.flow_sphere.reconstruction_weight = 1.0  # published, as the two below
    config.flow_sphere.consistency_weight = 1.0
    config.flow_sphere.latent_weight = 0.1
    config.flow_sphere.width = 256  # published: 6.3M, as the three below
    config.flow_sphere.depth = 6
    config.flow_sphere.head_dim = 32
    config.flow_sphere.hidden = 512
    config.flow_sphere.optimizer.learning_rate = 6e-4  # published
    config.flow_sphere.optimizer.final_fraction = 1e-6 / 6e-4  # published

    config.evaluation.samples = 5000
    config.evaluation.at_steps = (0,)  # the decode alone
    return config
