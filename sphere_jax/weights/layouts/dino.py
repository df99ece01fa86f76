"""Weights of DINO, DINOv2 and MAE, and what their layouts share with those of other vision
transformers."""

from typing import NamedTuple

from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    Turn,
    linear_kernel,
    patch_kernel,
    stack,
    torch_layer,
    torch_norm,
)


class Names(NamedTuple):
    """What a published layout calls the parts of the network and of its block n."""

    who: str
    patch_embedding: str
    cls_token: str
    registers: str
    block: str  # to be formatted with n
    norms: tuple[str, str]
    qkv: str | tuple[str, str, str]  # one layer, or three
    projection: str
    expand: str | tuple[str, str]  # one layer, or gate and value
    contract: str
    scales: tuple[str, str]  # unused without LayerScale
    norm: str
    cls_turn: Turn = Turn(lambda x: x[0], lambda x: x[None])
    qkv_parts: tuple[str, str] = (".weight", ".bias")


META = Names(
    who="Meta",
    patch_embedding="patch_embed.proj",
    cls_token="cls_token",
    registers="register_tokens",
    block="blocks.{}",
    norms=("norm1", "norm2"),
    qkv="attn.qkv",
    projection="attn.proj",
    expand="mlp.fc1",
    contract="mlp.fc2",
    scales=("ls1.gamma", "ls2.gamma"),
    norm="norm",
)
DINOV2 = Names(
    who="transformers (Dinov2Model)",
    patch_embedding="embeddings.patch_embeddings.projection",
    cls_token="embeddings.cls_token",
    registers="embeddings.register_tokens",
    block="encoder.layer.{}",
    norms=("norm1", "norm2"),
    qkv=tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    projection="attention.output.dense",
    expand="mlp.fc1",
    contract="mlp.fc2",
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    norm="layernorm",
)
VIT = DINOV2._replace(
    who="transformers (ViTModel)",
    norms=("layernorm_before", "layernorm_after"),
    expand="intermediate.dense",
    contract="output.dense",
)
# What only training masks, a layer on the class token that no DINO was trained with, and MAE's
# decoder.
IGNORED = r"(embeddings\.)?mask_token|pooler\..*|decoder_.*"

batched = Turn(lambda x: x[0], lambda x: x[None])  # (1, tokens, width) and (tokens, width)


def layouts(network: Network) -> list[Layout]:
    """Of a `DINO` or a `MAE`: Meta's files (torch.hub), whose names timm has too, and those of
    transformers.

    transformers has DINO as `ViTModel`, DINOv2 as `Dinov2Model` or `Dinov2WithRegistersModel`; the
    names are those in its files, which its version 5 renames when it loads them.
    """
    module = network.module
    transformers = DINOV2 if module.layer_scale else VIT
    found = []
    for names, positions in (
        (META, "pos_embed"),
        (transformers, "embeddings.position_embeddings"),
    ):
        leaves = trunk(names, module) | qkv_bias(names, module)
        leaves["positions"] = Source(positions, batched)
        found.append(Layout(names.who, leaves, ignored=ignored(IGNORED, names, module)))
    return found


def trunk(names: Names, module) -> dict[str, Source]:
    """Every leaf of a `VisionTransformer` but the positions and the bias of qkv."""
    leaves = {}
    if module.patch_embedding is not None:
        kernel = patch_kernel(module.patch)
        leaves |= torch_layer("patch_embedding", names.patch_embedding, kernel)
        if module.patch_embedding.bias is None:
            del leaves["patch_embedding/bias"]
    if module.cls_token is not None:
        leaves["cls_token"] = Source(names.cls_token, names.cls_turn)
    if module.registers:
        leaves["register_tokens"] = Source(names.registers, batched)
    if module.final_affine:
        leaves |= torch_norm("norm", names.norm)
    return leaves | stack([_block(names, n, module.layer_scale) for n in range(module.depth)])


def qkv_bias(names: Names, module) -> dict[str, Source]:
    """The bias of qkv, which not all have."""
    blocks = [f"{names.block.format(n)}." for n in range(module.depth)]
    biases = [_each(block, names.qkv, names.qkv_parts[1]) for block in blocks]
    return {"blocks/layers/attention/qkv/bias": Source(biases)}


def ignored(pattern: str, names: Names, module) -> str:
    """The pattern, and the final norm's scale and bias where the network leaves them out."""
    return pattern if module.final_affine else rf"{pattern}|{names.norm}\.(weight|bias)"


def _block(names: Names, n: int, layer_scale: bool) -> dict[str, Source]:
    ours, theirs = "blocks/layers", f"{names.block.format(n)}."
    leaves = {
        f"{ours}/attention/qkv/kernel": Source(
            _each(theirs, names.qkv, names.qkv_parts[0]), linear_kernel
        ),
        f"{ours}/mlp/expand/kernel": Source(_each(theirs, names.expand, ".weight"), linear_kernel),
        f"{ours}/mlp/expand/bias": Source(_each(theirs, names.expand, ".bias")),
        **torch_layer(f"{ours}/attention/projection", theirs + names.projection, linear_kernel),
        **torch_layer(f"{ours}/mlp/contract", theirs + names.contract, linear_kernel),
    }
    for k, (norm, scale) in enumerate(zip(names.norms, names.scales, strict=True), 1):
        leaves |= torch_norm(f"{ours}/norm{k}", theirs + norm)
        if layer_scale:
            leaves[f"{ours}/scale{k}"] = Source(theirs + scale)
    return leaves


def _each(before: str, names: str | tuple[str, ...], after: str) -> str | tuple[str, ...]:
    if isinstance(names, str):
        return before + names + after
    return tuple(before + name + after for name in names)
