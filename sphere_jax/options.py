"""Every option of a run: its type, its default, its range, as frozen dataclasses.

A group that comes in kinds (a tokenizer, a network, a sampler, a stage) has one class a kind, so
that no kind has an option which it does not read. `config.py` turns a config file into these.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal


def option(default, low=None, high=None):
    """A dataclass field with an inclusive range."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


# --- data ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Data:
    source: Literal["mnist5k", "digits", "npz", "cifar10", "folder", "latents"] = "mnist5k"
    path: str = ""  # npz file; folder of CIFAR-10, of class folders, or of latents.npy, labels.npy
    image_size: int = option(32, 8)  # images are padded (28 -> 32) or resized to this
    resize: Literal["bicubic", "nearest", "adm"] = "bicubic"  # then a centre crop
    channels: Literal[1, 3] = 1
    num_classes: int = option(10, 1)
    flip: bool = False  # random horizontal flip of training images
    threads: int = option(0, 0, 64)  # grain read threads; 0 reads in the training thread


# --- tokenizers: images <-> latents --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ConvVAETokenizer:
    name: Literal["conv_vae"] = "conv_vae"
    patch: int = option(2, 1)  # pixels folded into channels before the first level
    widths: tuple[int, ...] = (32, 64, 128)  # one level each, halving the grid between levels
    blocks: int = option(1, 1)  # residual blocks per level
    latent_channels: int = option(16, 2)


@dataclasses.dataclass(frozen=True)
class PrecomputedTokenizer:
    name: Literal["precomputed"] = "precomputed"
    latent_shape: tuple[int, ...] = ()  # (h, w, d) of the stored latents


@dataclasses.dataclass(frozen=True)
class SphereEncoderTokenizer:
    """methods.md E.3; `size` names a published one, or "" for width, depth and heads."""

    name: Literal["sphere_encoder"] = "sphere_encoder"
    size: Literal["", "small", "base", "large", "xlarge", "huge", "giant"] = ""
    width: int = option(192, 8)
    depth: int = option(6, 1)
    heads: int = option(6, 1)
    patch: int = option(4, 1)
    latent_channels: int = option(8, 1)
    mixer_depth: int = option(4, 0)  # token and channel mixing layers beside the sphere
    pixel_head: Literal["linear", "conv"] = "linear"
    conditional: bool = True  # classes modulate encoder and decoder
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    unroll: bool = True


Tokenizer = ConvVAETokenizer | PrecomputedTokenizer | SphereEncoderTokenizer


# --- the space of latents and the network on them ------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Space:
    path: Literal["linear", "shell_linear", "nlerp", "slerp"] = "slerp"
    sphere: Literal["token", "global"] = "token"
    radius: float = option(0.0, 0.0)  # 0 means sqrt(d) on the token sphere
    retraction: Literal["exp", "renormalize"] = "exp"


@dataclasses.dataclass(frozen=True)
class SiTModel:
    name: Literal["sit"] = "sit"
    size: Literal["", "S", "B", "L", "XL"] = ""  # a published size, or "" for the three below
    width: int = option(192, 8)
    depth: int = option(6, 1)
    heads: int = option(6, 1)
    patch: int = option(1, 1)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False  # recompute blocks in the backward pass
    # One program per layer (quick on CPU) or one scanned layer (quick to compile).
    unroll: bool = True


@dataclasses.dataclass(frozen=True)
class LightningDiTModel(SiTModel):
    name: Literal["lightning_dit"] = "lightning_dit"
    size: Literal["", "B", "L", "XL"] = ""
    qk_norm: bool = False
    time_embedding: Literal["sinusoid", "fourier"] = "sinusoid"


@dataclasses.dataclass(frozen=True)
class DenoiserModel(SiTModel):
    """LightningDiT without a time input and with QK-norm: the network of B (methods.md B.4)."""

    name: Literal["denoiser"] = "denoiser"
    size: Literal["", "B", "L", "XL"] = ""


Model = SiTModel | LightningDiTModel | DenoiserModel


# --- stages --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = option(1e-4, 0.0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = option(0, 0)
    hold: int = option(0, 0)  # steps at the end which the cosine has left behind
    final_fraction: float = option(0.0, 0.0, 1.0)  # cosine ends at this fraction of the peak
    b1: float = option(0.9, 0.0, 0.999999)
    b2: float = option(0.999, 0.0, 0.999999)
    weight_decay: float = option(0.0, 0.0)  # on matrices and kernels only
    clip_norm: float = option(0.0, 0.0)  # global gradient norm; 0 is off


@dataclasses.dataclass(frozen=True)
class Stage:
    """What every stage has, whatever it trains."""

    method: str = ""
    steps: int = option(1000, 1)
    batch_size: int = option(128, 1)
    accumulate: int = option(1, 1)  # micro-batches a step; the gradient is that of the whole batch
    ema_decay: float = option(0.999, 0.0, 0.999999)
    weights: Literal["ema", "raw"] = "ema"  # what later stages and samples use
    skip_nonfinite: int = option(0, 0)  # steps with a NaN to skip before stopping
    log_every: int = option(50, 1)
    checkpoint_every: int = option(500, 1)
    preview_every: int = option(500, 1)
    optimizer: Optimizer = Optimizer()


@dataclasses.dataclass(frozen=True)
class VAEStage(Stage):
    method: Literal["vae"] = "vae"
    kl_weight: float = option(1e-4, 0.0)
    l1_weight: float = option(1.0, 0.0)
    l2_weight: float = option(1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class DecoderStage(Stage):
    method: Literal["decoder"] = "decoder"
    l1_weight: float = option(1.0, 0.0)
    l2_weight: float = option(1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class FlowStage(Stage):
    method: Literal["flow"] = "flow"
    label_dropout: float = option(0.1, 0.0, 1.0)
    tangent_projection: bool = True  # compare only the tangent part of the prediction
    radial_weight: float = option(0.0, 0.0)  # penalty on the radial part (HAE: 0.1)
    time_density: Literal["uniform", "logit_normal", "truncated_logit_normal"] = "uniform"
    time_mean: float = 0.0  # of the logit
    time_std: float = option(1.0, 1e-6)
    time_low: float = option(0.0, 0.0, 1.0)  # truncation
    time_high: float = option(1.0, 0.0, 1.0)
    time_shift: float = option(1.0, 1e-6)  # training and sampling; 1 is off


@dataclasses.dataclass(frozen=True)
class SphereEncoderStage(Stage):
    """methods.md E.4 to E.6."""

    method: Literal["sphere_encoder"] = "sphere_encoder"
    label_dropout: float = option(0.1, 0.0, 1.0)  # encoder and decoder draw apart
    max_angle: float = option(85.0, 0.0, 89.0)  # degrees; sigma_max is its tangent
    strata: int = option(16, 3)  # samples over which noise radii are stratified
    hard_mix: Literal["released", "independent"] = "released"  # how the boost beyond is drawn
    hard_fraction: float = option(0.1, 0.0, 1.0)  # of samples that are boosted
    encoder_rate: float = option(0.1, 0.0)  # encoder learning rate over the decoder's
    reconstruction_weight: float = option(1.0, 0.0)  # w1, smooth L1
    reconstruction_perceptual: float = option(1.0, 0.0)  # w2
    consistency_weight: float = option(0.5, 0.0)  # w3, smooth L1
    consistency_perceptual: float = option(0.5, 0.0)  # w4
    latent_weight: float = option(0.1, 0.0)  # w5, 1 - cosine
    lpips: str = ""  # LPIPS-VGG weights (.safetensors); "" leaves the term out
    convnext: str = ""  # ConvNeXt-S weights (.safetensors); "" leaves the term out


@dataclasses.dataclass(frozen=True)
class SphereLatentStage(Stage):
    """methods.md B.5; what the paper leaves open is `inferred` in the configs."""

    method: Literal["sphere_latent"] = "sphere_latent"
    label_dropout: float = option(0.1, 0.0, 1.0)
    level_mean: float = 0.0  # of the logit of the two noise levels
    level_std: float = option(1.0, 1e-6)
    noise_map: Literal["tangent", "interpolation"] = "tangent"  # level to noise
    max_angle: float = option(85.0, 0.0, 89.0)  # degrees; of the tangent map and of sampling
    distance: Literal["l1", "l2"] = "l1"
    cosine: Literal["latent", "token"] = "latent"  # over the flattened latent, or token by token
    target: Literal["projected", "latent"] = "projected"  # clean latent, on the sphere or off it
    inputs: Literal["low", "clean_and_low"] = "low"  # what the reconstruction loss starts from
    distance_weight: float = option(1.0, 0.0)
    cosine_weight: float = option(1.0, 0.0)
    reconstruction_weight: float = option(1.0, 0.0)
    consistency_weight: float = option(1.0, 0.0)


STAGES = {
    "vae": VAEStage,
    "decoder": DecoderStage,
    "flow": FlowStage,
    "sphere_encoder": SphereEncoderStage,
    "sphere_latent": SphereLatentStage,
}


# --- sampling, scoring, devices ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sampler:
    steps: int = option(50, 1)
    guidance: float = option(1.0, 0.0)  # 1 is off and costs one network call
    batch_size: int = option(250, 1)


@dataclasses.dataclass(frozen=True)
class FlowSampler(Sampler):
    solver: Literal["euler", "heun", "midpoint"] = "euler"
    guidance_low: float = option(0.0, 0.0, 1.0)  # guided for times in [low, high], t = 1 is noise
    guidance_high: float = option(1.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class SphereLatentSampler(Sampler):
    """methods.md B.6."""

    steps: int = option(4, 1)
    schedule: Literal["decreasing", "fixed"] = "decreasing"  # of the re-noising strength
    strength: float = option(1.0, 0.0, 1.0)
    share_noise: bool = True  # one noise for all re-noising steps, or a fresh one each


@dataclasses.dataclass(frozen=True)
class SphereEncoderSampler(Sampler):
    """methods.md E.7."""

    steps: int = option(4, 1)
    schedule: Literal["fixed", "decreasing"] = "fixed"
    strength: float = option(1.0, 0.0, 1.0)
    share_noise: bool = True
    guidance_at: Literal["encoder", "decoder", "combo"] = "combo"


SAMPLERS = {  # by the method of the stage that generates
    "flow": FlowSampler,
    "sphere_encoder": SphereEncoderSampler,
    "sphere_latent": SphereLatentSampler,
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    samples: int = option(1000, 0)  # 0 skips scoring
    at_steps: tuple[int, ...] = ()  # numbers of sampling steps to score besides the sampler's own
    neighbours: int = option(3, 1)  # k of precision and recall
    classifier_steps: int = option(300, 1)


@dataclasses.dataclass(frozen=True)
class Mesh:
    data: int = option(-1, -1)  # -1: all devices that fsdp leaves
    fsdp: int = option(1, 1)  # parameters, optimizer state and EMA sharded over this many


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `stages` names the groups to train, in order."""

    stages: tuple[str, ...]
    groups: Mapping[str, Stage] = dataclasses.field(default_factory=dict)
    seed: int = option(0, 0, 2**32 - 1)
    data: Data = Data()
    tokenizer: Tokenizer = ConvVAETokenizer()
    space: Space = Space()
    model: Model = SiTModel()
    sampler: Sampler = FlowSampler()
    evaluation: Evaluation = Evaluation()
    mesh: Mesh = Mesh()

    def stage(self, name: str) -> Stage:
        return self.groups[name]

    @property
    def generator(self) -> str | None:
        """The last stage that generates."""
        named = [name for name in self.stages if self.stage(name).method in SAMPLERS]
        return named[-1] if named else None
