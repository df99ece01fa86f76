"""Weights of DC-AE, of HAE's decoder and of its stem.

A file holds a whole autoencoder. A network that is a part of it ignores the rest.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import nnx

from sphere_jax.models.dc_ae import AutoencoderDC, Decoder, Encoder
from sphere_jax.nn.batch_norm import BatchNorm
from sphere_jax.nn.dc_ae_blocks import Downsample, EViTBlock, SampleRMS, TRMS2d, Upsample
from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import (
    Layout,
    Source,
    Turn,
    conv_kernel,
    linear_kernel,
    pointwise_kernel,
    stack,
    torch_layer,
    torch_norm,
)

group_kernel = Turn(  # a grouped 1x1 convolution, (groups out, in, 1, 1) to (groups, in, out)
    lambda x: x.reshape(-1, x.shape[1], x.shape[1]).transpose(0, 2, 1),
    lambda x: x.transpose(0, 2, 1).reshape(-1, x.shape[1], 1, 1),
)
channel_vector = Turn(lambda x: x.reshape(-1), lambda x: x.reshape(1, -1, 1, 1))
Leaves = dict[str, Source]


class Names(NamedTuple):
    """What a layout calls the parts of an autoencoder, from its name for what they are in."""

    who: str
    encoder_level: str
    decoder_level: str
    layer: str  # in a level
    encoder_ends: tuple[str, str]
    decoder_ends: tuple[str, str, str]  # first convolution, norm, last convolution
    resampling: str  # in a layer that does so: its convolution, as if there were no more to it
    strided: str  # what comes behind that for one of stride 2; ".conv" for those with a shuffle
    res: tuple[str, str, str]  # two convolutions, norm
    qkv: tuple[str, ...]
    scale: Callable[[int], tuple[str, str]]
    projection: str
    product: Turn  # of qkv and projection
    glu: tuple[str, str, str]
    norms: tuple[str, str]  # of attention and of GLU
    coarsest_first: bool = False  # levels of the decoder


DIFFUSERS = Names(
    who="diffusers",
    encoder_level="encoder.down_blocks",
    decoder_level="decoder.up_blocks",
    layer="",
    encoder_ends=("encoder.conv_in", "encoder.conv_out"),
    decoder_ends=("decoder.conv_in", "decoder.norm_out", "decoder.conv_out"),
    resampling="",
    strided=".conv",
    res=("conv1", "conv2", "norm"),
    qkv=("attn.to_q", "attn.to_k", "attn.to_v"),
    scale=lambda n: tuple(f"attn.to_qkv_multiscale.{n}.proj_{end}" for end in ("in", "out")),
    projection="attn.to_out",
    product=linear_kernel,
    glu=("conv_out.conv_inverted", "conv_out.conv_depth", "conv_out.conv_point"),
    norms=("attn.norm_out", "conv_out.norm"),
)
EFFICIENTVIT = Names(
    who="efficientvit",
    encoder_level="encoder.stages",
    decoder_level="decoder.stages",
    layer="op_list.",
    encoder_ends=("encoder.project_in.conv", "encoder.project_out.main.op_list.0.conv"),
    decoder_ends=(
        "decoder.project_in.main.conv",
        "decoder.project_out.op_list.0",
        "decoder.project_out.op_list.2.conv",
    ),
    resampling=".main.conv",
    strided="",
    res=("main.conv1.conv", "main.conv2.conv", "main.conv2.norm"),
    qkv=("context_module.main.qkv.conv",),
    scale=lambda n: tuple(f"context_module.main.aggreg.{n}.{k}" for k in (0, 1)),
    projection="context_module.main.proj.conv",
    product=pointwise_kernel,
    glu=tuple(f"local_module.main.{part}_conv.conv" for part in ("inverted", "depth", "point")),
    norms=("context_module.main.proj.norm", "local_module.main.point_conv.norm"),
)
HAE = EFFICIENTVIT._replace(who="HAE", coarsest_first=True)


def layouts(network: Network) -> list[Layout]:
    """diffusers, mit-han-lab/efficientvit and, for a decoder, wkdgnsgo/HAE.

    `network` is of the module `AutoencoderDC`, `Encoder` or `Decoder`.
    """
    module = network.module
    if isinstance(module, Encoder):
        ignored, leaves, published = r"decoder\..*", _encoder, (DIFFUSERS, EFFICIENTVIT)
    elif isinstance(module, Decoder):
        ignored, leaves = r"(encoder|dino_model)\..*", _decoder
        published = DIFFUSERS, EFFICIENTVIT, HAE
    else:
        ignored, leaves, published = "", _autoencoder, (DIFFUSERS, EFFICIENTVIT)
    ignored += r"|.*\.num_batches_tracked"
    return [Layout(names.who, leaves(module, names), ignored=ignored) for names in published]


def stem_layouts(network: Network) -> list[Layout]:
    """The layout of a `ConvStem` in HAE's autoencoder."""
    theirs, leaves = "dino_model.patch_embed.cnn", {}
    for n in range(len(network.module.convs)):
        leaves |= _kernel(f"convs/{n}", f"{theirs}.{n}.conv", conv_kernel)
    for n, norm in enumerate(network.module.norms):
        leaves |= _norm(norm, f"norms/{n}", f"{theirs}.{n}.norm")
    return [Layout("HAE", leaves, ignored=r"decoder\..*|dino_model\.(?!patch_embed\.).*")]


def _autoencoder(module: AutoencoderDC, names: Names) -> Leaves:
    halves = (
        ("encoder", _encoder(module.encoder, names)),
        ("decoder", _decoder(module.decoder, names)),
    )
    return {f"{half}/{ours}": source for half, leaves in halves for ours, source in leaves.items()}


def _encoder(module: Encoder, names: Names) -> Leaves:
    first, last = names.encoder_ends
    leaves = _conv(module.project_in, "project_in", first, names)
    leaves |= torch_layer("project_out", last, conv_kernel)
    for n, level in enumerate(module.levels):
        theirs = f"{names.encoder_level}.{n + module.finest}.{names.layer}"
        leaves |= _blocks(level, f"levels/{n}/blocks/layers", theirs, 0, names)
        if level.downsample is not None:
            conv = f"{theirs}{level.depth}{names.resampling}"
            leaves |= _conv(level.downsample, f"levels/{n}/downsample", conv, names)
    return leaves


def _decoder(module: Decoder, names: Names) -> Leaves:
    first, norm, last = names.decoder_ends
    leaves = torch_layer("project_in", first, conv_kernel)
    leaves |= _norm(module.out_norm, "out_norm", norm)
    leaves |= _conv(module.project_out, "project_out", last, names)
    coarsest = module.finest + len(module.levels) - 1
    for n, level in enumerate(module.levels):
        theirs = (
            f"{names.decoder_level}.{n if names.coarsest_first else coarsest - n}.{names.layer}"
        )
        ours, upsampled = f"levels/{n}", level.upsample is not None
        leaves |= _blocks(level, f"{ours}/blocks/layers", theirs, int(upsampled), names)
        if upsampled:
            leaves |= _conv(
                level.upsample, f"{ours}/upsample", f"{theirs}0{names.resampling}", names
            )
    return leaves


def _conv(module: nnx.Module, ours: str, theirs: str, names: Names) -> Leaves:
    """A convolution that may be inside a resampling."""
    if not isinstance(module, Downsample | Upsample):
        return torch_layer(ours, theirs, conv_kernel)
    inside = names.strided if module.kind == "conv" else ".conv"
    return torch_layer(f"{ours}/conv", theirs + inside, conv_kernel)


def _blocks(level: nnx.Module, ours: str, theirs: str, first: int, names: Names) -> Leaves:
    block = level.blocks.layers
    leaves = _evit if isinstance(block, EViTBlock) else _res
    return stack([leaves(block, ours, f"{theirs}{first + n}", names) for n in range(level.depth)])


def _res(block: nnx.Module, ours: str, theirs: str, names: Names) -> Leaves:
    conv1, conv2, norm = (f"{theirs}.{name}" for name in names.res)
    return {
        **torch_layer(f"{ours}/conv1", conv1, conv_kernel),
        **_kernel(f"{ours}/conv2", conv2, conv_kernel),
        **_norm(block.norm, f"{ours}/norm", norm),
    }


def _evit(block: nnx.Module, ours: str, theirs: str, names: Names) -> Leaves:
    attention, glu = f"{ours}/attention", f"{ours}/glu"
    expand, depth, point = (f"{theirs}.{name}" for name in names.glu)
    qkv = tuple(f"{theirs}.{name}.weight" for name in names.qkv)
    leaves = {
        f"{attention}/qkv/kernel": Source(qkv if len(qkv) > 1 else qkv[0], names.product),
        **_kernel(f"{attention}/projection", f"{theirs}.{names.projection}", names.product),
        **_norm(block.attention.norm, f"{attention}/norm", f"{theirs}.{names.norms[0]}"),
        **torch_layer(f"{glu}/expand", expand, pointwise_kernel),
        **torch_layer(f"{glu}/depthwise", depth, conv_kernel),
        **_kernel(f"{glu}/contract", point, pointwise_kernel),
        **_norm(block.glu.norm, f"{glu}/norm", f"{theirs}.{names.norms[1]}"),
    }
    for n in range(len(block.attention.scales)):
        scale, (around, within) = f"{attention}/scales/{n}", names.scale(n)
        leaves |= _kernel(f"{scale}/depthwise", f"{theirs}.{around}", conv_kernel)
        leaves[f"{scale}/mix"] = Source(f"{theirs}.{within}.weight", group_kernel)
    return leaves


def _kernel(ours: str, theirs: str, turn: Turn) -> Leaves:
    """A layer without bias."""
    return {f"{ours}/kernel": Source(f"{theirs}.weight", turn)}


def _norm(norm: Callable, ours: str, theirs: str) -> Leaves:
    if isinstance(norm, SampleRMS):
        return {f"{ours}/scale": Source(f"{theirs}.weight", channel_vector)}
    leaves = torch_norm(ours, theirs) if isinstance(norm, TRMS2d | BatchNorm) else {}
    if isinstance(norm, BatchNorm):
        leaves[f"{ours}/mean"] = Source(f"{theirs}.running_mean")
        leaves[f"{ours}/variance"] = Source(f"{theirs}.running_var")
    return leaves
