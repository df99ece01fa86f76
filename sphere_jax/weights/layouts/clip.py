"""Weights of the image tower of CLIP; those of the text tower beside it are not used."""

import numpy as np

from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.dino import META, Names, batched, qkv_bias, trunk
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    Turn,
    as_is,
    linear_kernel,
    torch_norm,
)

TIMM = META._replace(who="timm")
TRANSFORMERS = Names(
    who="transformers (CLIPModel)",
    patch_embedding="vision_model.embeddings.patch_embedding",
    cls_token="vision_model.embeddings.class_embedding",
    registers="",
    block="vision_model.encoder.layers.{}",
    norms=("layer_norm1", "layer_norm2"),
    qkv=tuple(f"self_attn.{part}_proj" for part in "qkv"),
    projection="self_attn.out_proj",
    expand="mlp.fc1",
    contract="mlp.fc2",
    scales=("", ""),
    norm="vision_model.post_layernorm",
    cls_turn=Turn(lambda x: x[None], lambda x: x[0]),
)
OPENAI = Names(
    who="OpenAI and open_clip",
    patch_embedding="visual.conv1",
    cls_token="visual.class_embedding",
    registers="",
    block="visual.transformer.resblocks.{}",
    norms=("ln_1", "ln_2"),
    qkv="attn.in_proj",
    projection="attn.out_proj",
    expand="mlp.c_fc",
    contract="mlp.c_proj",
    scales=("", ""),
    norm="visual.ln_post",
    cls_turn=TRANSFORMERS.cls_turn,
    qkv_parts=("_weight", "_bias"),
)
# The other tower, the temperature, and the numbers 0 ... N - 1.
IGNORED = {
    TIMM.who: "",
    TRANSFORMERS.who: r"text_model\..*|text_projection\..*|logit_scale|.*\.position_ids",
    OPENAI.who: r"transformer\..*|token_embedding\..*|positional_embedding|ln_final\..*"
    r"|text_projection|logit_scale|input_resolution|context_length|vocab_size|attn_mask",
}


def layouts(network: Network) -> list[Layout]:
    """timm's, transformers', and OpenAI's own; `network` is of the module `CLIP`."""
    rest = {  # positions, norm before the blocks, projection
        TIMM.who: ("pos_embed", batched, "norm_pre", "head.weight", linear_kernel),
        TRANSFORMERS.who: (
            "vision_model.embeddings.position_embedding.weight",
            as_is,
            "vision_model.pre_layrnorm",  # as they spell it
            "visual_projection.weight",
            linear_kernel,
        ),
        OPENAI.who: ("visual.positional_embedding", as_is, "visual.ln_pre", "visual.proj", as_is),
    }
    found = []
    for names in (TIMM, TRANSFORMERS, OPENAI):
        positions, turn, pre_norm, projection, projection_turn = rest[names.who]
        leaves = trunk(names, network.module) | qkv_bias(names, network.module)
        leaves |= torch_norm("pre_norm", pre_norm)
        leaves["positions"] = Source(positions, turn)
        leaves["projection/kernel"] = Source(projection, projection_turn)
        constants = {}
        if names is TIMM:  # its head has a bias, which CLIP has not
            width = network.module.projection.kernel.shape[1]
            constants["head.bias"] = np.zeros(width, np.float32)
        found.append(Layout(names.who, leaves, constants, ignored=IGNORED[names.who]))
    return found
