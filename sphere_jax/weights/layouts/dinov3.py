"""DINOv3 weights."""

import numpy as np

from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.dino import META, Names, ignored, trunk
from sphere_jax.weights.tensors import Layout, Source, Turn

TRANSFORMERS = Names(
    who="transformers (DINOv3ViTModel)",
    patch_embedding="embeddings.patch_embeddings",
    cls_token="embeddings.cls_token",
    registers="embeddings.register_tokens",
    block="layer.{}",
    norms=("norm1", "norm2"),
    qkv=tuple(f"attention.{part}_proj" for part in "qkv"),
    projection="attention.o_proj",
    expand="mlp.up_proj",
    contract="mlp.down_proj",
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    norm="norm",
)
# What only training masks; which biases a layer has (below); a norm of training's small crops.
IGNORED = r"(embeddings\.)?mask_token|.*\.bias_mask|local_cls_norm\..*"

without_key = Turn(  # a bias of q | k | v as one of q | v
    lambda x: np.concatenate(np.split(x, 3)[::2]),
    lambda x: np.insert(x, [len(x) // 2] * (len(x) // 2), 0),
)


def layouts(network: Network) -> list[Layout]:
    """Of a `DINOv3`: Meta's files, and those of transformers (`DINOv3ViTModel`).

    Meta's hold the periods of the rotation, rounded to bfloat16 in those published: a network of
    another `rope_dtype` refuses them. They also hold for each layer a bias of qkv and a `bias_mask`
    of ones and zeros to multiply it with. Only the bias of k, which no softmax sees, is left out
    here: in the files published the masks are zero, but so are the biases.
    """
    module = network.module
    meta = META._replace(registers="storage_tokens")
    transformers = TRANSFORMERS
    if module.swiglu:
        meta = meta._replace(expand=("mlp.w1", "mlp.w2"), contract="mlp.w3")
        transformers = transformers._replace(expand=("mlp.gate_proj", "mlp.up_proj"))
    blocks = [f"blocks.{n}.attn.qkv.bias" for n in range(module.depth)]
    layers = [
        tuple(f"layer.{n}.attention.{part}_proj.bias" for part in "qv") for n in range(module.depth)
    ]
    ours = "blocks/layers/attention/qv_bias"
    periods = np.asarray(module.periods(), np.float32)
    return [
        Layout(
            meta.who,
            trunk(meta, module) | {ours: Source(blocks, without_key)},
            {"rope_embed.periods": periods},
            ignored=ignored(IGNORED, meta, module),
        ),
        Layout(
            transformers.who,
            trunk(transformers, module) | {ours: Source(layers)},
            ignored=ignored(IGNORED, transformers, module),
        ),
    ]
