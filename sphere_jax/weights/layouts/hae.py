"""Weights of HAE's autoencoder in one file: stem, frozen ViT and decoder."""

from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts import dc_ae, dinov3
from sphere_jax.weights.tensors import Layout, Source

VIT = "dino_model."


def layouts(network: Network) -> list[Layout]:
    """Of a `models.hae.HAE` with a convolutional stem, as wkdgnsgo/HAE stores it: the ViT as Meta
    names it, under `dino_model`, without the patch embedding that the stem replaces.
    """
    module = network.module
    (stem,) = dc_ae.stem_layouts(_of(module.stem))
    decoder = dc_ae.layouts(_of(module.decoder))[-1]
    vit = dinov3.layouts(_of(module.vit))[0]
    leaves = {f"stem/{ours}": source for ours, source in stem.leaves.items()}
    leaves |= {f"decoder/{ours}": source for ours, source in decoder.leaves.items()}
    leaves |= {f"vit/{ours}": _inside(source) for ours, source in vit.leaves.items()}
    constants = {VIT + name: value for name, value in vit.constants.items()}
    ignored = rf"dino_model\.({vit.ignored}|patch_embed\.proj\..*)"
    return [Layout("HAE", leaves, constants, ignored=ignored)]


def _inside(source: Source) -> Source:
    """With the names of tensors in the ViT's part of the file."""

    def prefixed(names):
        if isinstance(names, str):
            return VIT + names
        return type(names)(prefixed(name) for name in names)

    return source._replace(names=prefixed(source.names))


class _of:  # what layouts of parts read of a Network
    def __init__(self, module):
        self.module = module
