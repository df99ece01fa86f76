"""The Euclidean baseline of RJF and HAE: linear flow matching on whitened RAE latents, DiT-DH-XL.

Published scores (docs/systems/hae.md#published-results): gFID 2.16 after 80 epochs, 1.51 after 800,
unguided. HAE prints 879M parameters; these are 838.7M. Training and sampling follow RAE's released
stage 2 (docs/systems/hae.md#rae-flow), whose settings were tuned after the paper's numbers:
published means that file, or the paper where it says so. `--config.model.size=B` is smaller.

Published samples are guided by a weaker run, too: --config.sampler.auto_guidance=RUN and
--config.sampler.guidance=1.42.

Put the images below data/imagenet/train/<class>/ and data/imagenet/val/<class>/. Encode them once
with `python -m sphere_jax.prepare latents --config=configs/imagenet_rae_ddt.py --out=C` and add
`--config.data.source=cache --config.data.path=C` to the run. `--dry_run` needs neither.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

rjf = runpy.run_path(str(Path(__file__).with_name("imagenet_rjf.py")))

BATCH = rjf["BATCH"]  # published: 1,024
EPOCHS = 1400  # published; 800 and 80 in the paper's table
STEPS_PER_EPOCH = rjf["STEPS_PER_EPOCH"]


def get_config():
    base = rjf["get_config"]()
    config = ConfigDict()
    config.seed = 0
    config.stages = ("flow",)  # the tokenizer is frozen

    config.data = base.data  # published: ImageNet at 256 px; inferred: the crop and the flips

    config.tokenizer = base.tokenizer  # published: RAE with its XL decoder
    config.tokenizer.whiten = True  # published: RAE's statistics, which RJF leaves out
    config.tokenizer.pretrained_statistics = ""  # sphere_jax.convert --network rae_statistics_256

    config.space = ConfigDict()
    config.space.path = "linear"  # published: Euclidean flow matching

    config.model = ConfigDict()
    config.model.name = "lightning_ddt"
    config.model.size = "XL"  # published: a LightningDiT-XL and a head of 2 layers 2,048 wide
    config.model.patch = 1
    config.model.qk_norm = True  # published; the released weights (dit_dh_xl) have none: False
    config.model.compute_dtype = "bfloat16"  # inferred: RJF's is float32. See docs/bf16.md
    config.model.unroll = False  # one scanned layer: quick to compile
    config.model.remat = "blocks"

    config.flow = ConfigDict()
    config.flow.method = "flow"
    config.flow.encode = "every_step"  # images; a cache holds latents already
    config.flow.steps = EPOCHS * STEPS_PER_EPOCH
    config.flow.batch_size = BATCH
    config.flow.ema_decay = 0.9995  # published
    config.flow.label_dropout = 0.1  # published
    config.flow.time_density = "truncated_logit_normal"  # published: mean 0, deviation 1
    config.flow.time_high = 0.999  # published
    config.flow.time_shift = 0.0  # published: from the dimension, sqrt(196,608 / 4,096) = 6.928
    config.flow.log_every = 100
    config.flow.checkpoint_every = 5_000
    config.flow.preview_every = 5_000
    config.flow.optimizer = base.flow.optimizer  # published: rate, betas, no weight decay, constant
    # for 40 epochs, then linear to 2e-5 at epoch 800
    config.flow.optimizer.eps = 1e-8  # inferred: the default
    config.flow.optimizer.clip_norm = 1.0  # published

    config.sampler = ConfigDict()
    config.sampler.solver = "euler"  # published
    config.sampler.steps = 49  # published: between 50 times
    config.sampler.t_end = 0.001  # published: the last of them, before the shift
    config.sampler.guidance = 1.0  # published: unguided; guided by a weaker network: see above
    config.sampler.batch_size = 256

    config.evaluation = base.evaluation  # published, inferred: as there
    config.mesh = base.mesh
    return config
