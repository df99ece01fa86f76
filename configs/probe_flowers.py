"""Flowers and a tiny VAE, for `sphere_jax.probe`: only `data` and `tokenizer` are read there.

docs/systems/spherical_flow.md#probes, docs/systems/hae.md#probes; docs/probe.md has the commands.
Give both paths on the command line.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.stages = ("flow",)  # a config needs a stage; a probe trains none
    config.flow = ConfigDict()
    config.flow.method = "flow"

    config.data = ConfigDict()
    config.data.source = "npz"  # images or JPEG bytes, labels; test_ ones are held out and probed
    config.data.path = ""
    config.data.image_size = 128  # resized to this
    config.data.channels = 3
    config.data.num_classes = 12

    config.tokenizer = ConfigDict()
    config.tokenizer.name = "tiny_vae"
    config.tokenizer.kind = "taef2"  # or taesd, taef1
    config.tokenizer.pretrained = ""  # what sphere_jax.convert wrote
    return config
