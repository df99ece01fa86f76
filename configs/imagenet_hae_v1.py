"""HAE's autoencoder as its first version had it, DINO-SAE: four stages.

docs/systems/hae.md#autoencoder-training. As imagenet_hae.py but for what stands here: (1) stem and
decoder, (2) the same against a discriminator, (3) the decoder alone, (4) with noise on latents.
Weights as there, `--config.STAGE.lpips` and `.dino` for each stage that has them.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

hae = runpy.run_path(str(Path(__file__).with_name("imagenet_hae.py")))

BATCH = 256  # published
STEPS_PER_EPOCH = hae["IMAGES"] // BATCH
EPOCHS = {"align": 20, "adversarial": 10, "refine": 10, "smooth": 20}  # inferred
# Published, but for the first, which is the second version's, as betas, averages and noise are.
RATES = {"align": 1e-5, "adversarial": 1e-4, "refine": 1e-4, "smooth": 5.4e-5}


def get_config():
    config = hae["get_config"]()
    config.stages = tuple(EPOCHS)

    second = config.decode.to_dict()
    del config.decode
    for name in ("adversarial", "refine", "smooth"):
        stage = ConfigDict(second)
        stage.latent_noise = stage.latent_noise_end = 0.0
        stage.latent_noise_ramp = stage.adversarial_from = 0  # the discriminator goes on
        config[name] = stage
    config.adversarial.encoder = "train"  # published: the whole autoencoder
    config.adversarial.align = "cosine"  # inferred: as in the stage before
    config.adversarial.adversarial_from = 2 * STEPS_PER_EPOCH  # inferred, from the second version
    config.smooth.latent_noise = 0.8  # inferred: RAE's

    for name, epochs in EPOCHS.items():
        config[name].steps = epochs * STEPS_PER_EPOCH
        config[name].batch_size = BATCH
        config[name].optimizer.learning_rate = RATES[name]
    return config
