"""Weights of SiT and DiT, LightningDiT (its authors, RAE, RJF) and DiT-DH (RAE)."""

import numpy as np

from sphere_jax.models.lightning_ddt import LightningDDT
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.sit import SiT
from sphere_jax.nn.attention import Attention
from sphere_jax.nn.embeddings import sincos_positions
from sphere_jax.nn.functional import Network
from sphere_jax.nn.rope import axial_angles
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    as_is,
    linear_kernel,
    named_leaves,
    patch_kernel,
)

PUBLISHED = {SiT: "SiT and DiT", LightningDiT: "LightningDiT", LightningDDT: "DiT-DH of RAE"}

# Our modules and theirs. Of the parts of a module, those that a network has.
OUTSIDE = {
    "time": "t_embedder",
    "time/hidden": "t_embedder.mlp.0",
    "time/output": "t_embedder.mlp.2",
    "label": "y_embedder.embedding_table",
    "projector": "s_projector",
    "head/norm": "final_layer.norm_final",
    "head/modulation": "final_layer.adaLN_modulation.1",
    "head/output": "final_layer.linear",
}
IN_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention/qkv": "attn.qkv",
    "attention/q_norm": "attn.q_norm",
    "attention/k_norm": "attn.k_norm",
    "attention/projection": "attn.proj",
    "modulation": "adaLN_modulation.1",
}
GELU = {"mlp/expand": "mlp.fc1", "mlp/contract": "mlp.fc2"}
SWIGLU = {"mlp/expand": "mlp.w12", "mlp/contract": "mlp.w3"}
PARTS = {
    "kernel": ("weight", linear_kernel),
    "bias": ("bias", as_is),
    "scale": ("weight", as_is),
    "table": ("weight", as_is),
    "frequencies": ("W", as_is),
}


def layouts(network: Network) -> list[Layout]:
    """The published layout of a `SiT`, `LightningDiT` or `LightningDDT`; none of other modules.

    SiT and DiT differ in no name. A `LightningDDT` has the blocks of its head behind those of its
    encoder. The tables of positions are buffers there and constants here; weights without the table
    `pos_embed` (an option of RAE's) are of another network.
    """
    module = network.module
    if type(module) not in PUBLISHED:
        return []
    modules = OUTSIDE | {"patches": "x_embedder.proj"}
    stacks = {"blocks": range(module.depth)}
    constants = _rope("feat_rope", module.blocks.layers.attention)
    if isinstance(module, LightningDDT):
        modules |= {"patches": "s_embedder.proj", "head_patches": "x_embedder.proj"}
        stacks["head_blocks"] = range(module.depth, module.depth + module.head_depth)
        constants = _rope("enc_feat_rope", module.blocks.layers.attention)
        constants |= _rope("dec_feat_rope", module.head_blocks.layers.attention)
    constants["pos_embed"] = sincos_positions(module.grid, module.width)[None]
    in_block = IN_BLOCK | (GELU if isinstance(module, SiT) else SWIGLU)

    def source(path: str, names: dict[str, str], prefix: str = "") -> Source:
        owner, part = path.rsplit("/", 1)
        name, turn = PARTS[part]
        if path.endswith("patches/kernel"):  # a convolution there
            turn = patch_kernel(module.patch)
        return Source(f"{prefix}{names[owner]}.{name}", turn)

    leaves = {}
    shapes = network.shapes
    for ours in named_leaves(shapes):
        blocks, inside, rest = ours.partition("/layers/")
        if inside:
            layers = [source(rest, in_block, f"blocks.{n}.") for n in stacks[blocks]]
            leaves[ours] = Source([layer.names for layer in layers], layers[0].turn)
        else:
            leaves[ours] = source(ours, modules)
    return [Layout(PUBLISHED[type(module)], leaves, constants, needed=("pos_embed",))]


def _rope(name: str, attention: Attention) -> dict[str, np.ndarray]:
    """cos and sin of the angle of every channel, (tokens, head dimension) float32."""
    if attention.rope_grid is None:
        return {}
    head_dim = attention.projection.kernel.shape[-1] // attention.heads
    angles = np.repeat(axial_angles(attention.rope_grid, head_dim), 2, axis=1)
    return {
        f"{name}.freqs_cos": np.float32(np.cos(angles)),
        f"{name}.freqs_sin": np.float32(np.sin(angles)),
    }
