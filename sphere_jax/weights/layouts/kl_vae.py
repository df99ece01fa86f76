"""AutoencoderKL weights: Stable Diffusion's, FLUX.1's, FLUX.2's, VA-VAE's."""

from collections.abc import Callable
from typing import NamedTuple

from sphere_jax.models.kl_vae import Attention, Decoder, Encoder, ResBlock
from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    Turn,
    conv_kernel,
    linear_kernel,
    pointwise_kernel,
    torch_layer,
    torch_norm,
)

# Of files of whole training runs: losses and discriminators, averages, and what VA-VAE is aligned
# with. The counter of a batch norm is not used here.
IGNORED = r"(loss|model_ema|foundation_model|linear_proj)\..*|.*num_batches_tracked"


class Names(NamedTuple):
    """Names of the layers in a published layout; levels are counted as ours are."""

    level: Callable[[str, int, int], str]  # of "encoder" or "decoder": level k of so many
    blocks: str
    attentions: str
    resample: dict[str, str]
    middle: tuple[str, str, str]
    last_norm: str
    shortcut: str
    attention_norm: str
    qkv: tuple[str, str, str]
    projection: str
    attention_kernel: Turn
    quant: dict[str, str]


DIFFUSERS = Names(
    level=lambda half, k, of: f"{half}.{'down' if half == 'encoder' else 'up'}_blocks.{k}",
    blocks="resnets",
    attentions="attentions",
    resample={"encoder": "downsamplers.0.conv", "decoder": "upsamplers.0.conv"},
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    last_norm="conv_norm_out",
    shortcut="conv_shortcut",
    attention_norm="group_norm",
    qkv=("to_q", "to_k", "to_v"),
    projection="to_out.0",
    attention_kernel=linear_kernel,
    quant={"encoder": "quant_conv", "decoder": "post_quant_conv"},
)
OLD_DIFFUSERS = DIFFUSERS._replace(qkv=("query", "key", "value"), projection="proj_attn")
LDM = Names(
    level=lambda half, k, of: (
        f"encoder.down.{k}" if half == "encoder" else f"decoder.up.{of - 1 - k}"
    ),
    blocks="block",
    attentions="attn",
    resample={"encoder": "downsample.conv", "decoder": "upsample.conv"},
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    last_norm="norm_out",
    shortcut="nin_shortcut",
    attention_norm="norm",
    qkv=("q", "k", "v"),
    projection="proj_out",
    attention_kernel=pointwise_kernel,
    quant={"encoder": "quant_conv", "decoder": "post_quant_conv"},
)
FLUX2 = LDM._replace(quant={"encoder": "encoder.quant_conv", "decoder": "decoder.post_quant_conv"})


def layouts(network: Network) -> list[Layout]:
    """diffusers, before and after its attention was renamed, and LDM.

    The repositories of FLUX and VA-VAE keep LDM's names, but that of FLUX.2 has the 1x1
    convolutions of moments and latents inside of encoder and decoder, not beside them. `network` is
    of the module `AutoencoderKL`.
    """
    original = ("FLUX.2", FLUX2) if network.module.statistics is not None else ("LDM", LDM)
    return [
        Layout(whose, _autoencoder(network, names), ignored=IGNORED)
        for whose, names in (
            ("diffusers", DIFFUSERS),
            ("older diffusers", OLD_DIFFUSERS),
            original,
        )
    ]


def _autoencoder(network: Network, names: Names) -> dict[str, Source]:
    module = network.module
    leaves = _half("encoder", module.encoder, names) | _half("decoder", module.decoder, names)
    if module.statistics is not None:
        leaves["statistics/mean"] = Source("bn.running_mean")
        leaves["statistics/var"] = Source("bn.running_var")
    return leaves


def _half(half: str, module: Encoder | Decoder, names: Names) -> dict[str, Source]:
    leaves = torch_layer(f"{half}/stem", f"{half}.conv_in", conv_kernel)
    leaves |= torch_norm(f"{half}/norm", f"{half}.{names.last_norm}")
    leaves |= torch_layer(f"{half}/head", f"{half}.conv_out", conv_kernel)
    if module.quant is not None:
        leaves |= torch_layer(f"{half}/quant", names.quant[half], pointwise_kernel)
    parts = (("block1", _block), ("attention", _attention), ("block2", _block))
    for (part, layer), theirs in zip(parts, names.middle, strict=True):
        ours = getattr(module.middle, part)
        leaves |= layer(f"{half}/middle/{part}", f"{half}.{theirs}", ours, names)
    for k, level in enumerate(module.levels):
        ours, theirs = f"{half}/levels/{k}", names.level(half, k, len(module.levels))
        for n, block in enumerate(level.blocks):
            leaves |= _block(f"{ours}/blocks/{n}", f"{theirs}.{names.blocks}.{n}", block, names)
        for n, attention in enumerate(level.attentions):
            at = f"{theirs}.{names.attentions}.{n}"
            leaves |= _attention(f"{ours}/attentions/{n}", at, attention, names)
        if k < len(module.levels) - 1:
            resample = f"{half}/{'downs' if half == 'encoder' else 'ups'}/{k}"
            leaves |= torch_layer(resample, f"{theirs}.{names.resample[half]}", conv_kernel)
    return leaves


def _block(ours: str, theirs: str, module: ResBlock, names: Names) -> dict[str, Source]:
    leaves = {}
    for n in (1, 2):
        leaves |= torch_norm(f"{ours}/norm{n}", f"{theirs}.norm{n}")
        leaves |= torch_layer(f"{ours}/conv{n}", f"{theirs}.conv{n}", conv_kernel)
    if module.shortcut is not None:
        shortcut = f"{theirs}.{names.shortcut}"
        leaves |= torch_layer(f"{ours}/shortcut", shortcut, pointwise_kernel)
    return leaves


def _attention(ours: str, theirs: str, module: Attention, names: Names) -> dict[str, Source]:
    kernel, qkv = names.attention_kernel, [f"{theirs}.{name}" for name in names.qkv]
    return {
        **torch_norm(f"{ours}/norm", f"{theirs}.{names.attention_norm}"),
        f"{ours}/qkv/kernel": Source(tuple(f"{name}.weight" for name in qkv), kernel),
        f"{ours}/qkv/bias": Source(tuple(f"{name}.bias" for name in qkv)),
        **torch_layer(f"{ours}/projection", f"{theirs}.{names.projection}", kernel),
    }
