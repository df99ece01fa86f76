"""What a stage trains, one dataclass a method."""

import dataclasses
from typing import Literal

from sphere_jax.config.options.option import option


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = option(1e-4, 0.0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"  # how it falls from the peak
    warmup: int = option(0, 0)
    constant_steps: int = option(0, 0)  # at the peak, after the warm-up, before the fall
    hold: int = option(0, 0)  # steps at the end which the fall has left behind
    fall_steps: int = option(0, 0)  # that the fall takes, or would; 0: all that are left
    final_fraction: float = option(0.0, 0.0, 1.0)  # the fall ends at this fraction of the peak
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
    ema_profiles: tuple[float, ...] = ()  # relative widths of further averages (Karras 2024)
    ema_snapshot_every: int = option(0, 0)  # steps; these are kept, for sphere_jax.ema
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
    """methods.md A.5."""

    method: Literal["decoder"] = "decoder"
    target: Literal["images", "original"] = "images"  # original: what it made of raw latents before
    l1_weight: float = option(1.0, 0.0)
    l2_weight: float = option(1.0, 0.0)
    lpips: str = ""  # LPIPS-VGG weights (.safetensors); "" leaves the term out
    lpips_weight: float = option(1.0, 0.0)
    latent_noise: float = option(0.0, 0.0)  # up to this on projected latents, projected again
    adversarial_weight: float = option(0.0, 0.0)  # 0: no discriminator; published for others: 0.5
    discriminator: Literal["patch", "dino"] = "patch"
    dino: str = ""  # weights of DINO ViT-S/8, on which discriminator="dino" stands
    discriminator_rate: float = option(1.0, 0.0)  # its learning rate over the decoder's
    adversarial_from: int = option(0, 0)  # step from which it counts for the decoder, too
    measured: int = option(0, 0)  # held-out images, spread evenly, measured at its end; 0: all


@dataclasses.dataclass(frozen=True)
class FlowStage(Stage):
    method: Literal["flow"] = "flow"
    steps: int = option(1000, 0)  # 0 takes `pretrained` as it is
    pretrained: str = ""  # weights to begin from, converted or as published
    label_dropout: float = option(0.1, 0.0, 1.0)
    encode: Literal["once", "every_step"] = "once"  # images; once: into memory, and unflipped
    tangent_projection: bool = True  # compare only the tangent part of the prediction
    radial_weight: float = option(0.0, 0.0)  # penalty on the radial part (HAE: 0.1)
    loss_weight: Literal["none", "jacobi", "jacobi_reversed"] = "none"  # methods.md D.10
    time_density: Literal["uniform", "logit_normal", "truncated_logit_normal"] = "uniform"
    time_mean: float = 0.0  # of the logit
    time_std: float = option(1.0, 1e-6)
    time_low: float = option(0.0, 0.0, 1.0)  # truncation
    time_high: float = option(1.0, 0.0, 1.0)
    time_shift: float = option(1.0, 0.0)  # training and sampling; 1 is off, 0: from the dimension


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
    steps: int = option(1000, 0)  # 0 takes `pretrained` as it is
    pretrained: str = ""  # weights to begin from, what sphere_jax.ema wrote
    label_dropout: float = option(0.1, 0.0, 1.0)
    encode: Literal["once", "every_step"] = "once"  # images; once: into memory, and unflipped
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
