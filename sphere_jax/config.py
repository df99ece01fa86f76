"""Every option of a run: its type, its default, its range. Read once, checked once, then frozen.

A config file (`configs/*.py`) returns an `ml_collections.ConfigDict`; `read_config` turns it into
the dataclasses below and says, in one sentence, what is wrong with it. Library code sees only the
dataclasses.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from sphere_jax.errors import UserError


def option(default, low=None, high=None):
    """A dataclass field with an inclusive range."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


@dataclasses.dataclass(frozen=True)
class Data:
    source: Literal["mnist5k", "digits", "npz", "latents"] = "mnist5k"
    path: str = ""  # npz file, or folder with latents.npy and labels.npy
    image_size: int = option(32, 8)  # images are padded (28 -> 32) or resized to this
    channels: Literal[1, 3] = 1
    num_classes: int = option(10, 1)
    flip: bool = False  # random horizontal flip of training images
    threads: int = option(0, 0, 64)  # grain read threads; 0 reads in the training thread


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    name: Literal["conv_vae", "precomputed"] = "conv_vae"
    patch: int = option(2, 1)  # conv_vae: pixels folded into channels before the first level
    widths: tuple[int, ...] = (32, 64, 128)  # one level each, halving the grid between levels
    blocks: int = option(1, 1)  # residual blocks per level
    latent_channels: int = option(16, 2)
    latent_shape: tuple[int, ...] = ()  # precomputed: (h, w, d) of the stored latents


@dataclasses.dataclass(frozen=True)
class Space:
    path: Literal["linear", "shell_linear", "nlerp", "slerp"] = "slerp"
    sphere: Literal["token", "global"] = "token"
    radius: float = option(0.0, 0.0)  # 0 means sqrt(d) on the token sphere
    retraction: Literal["exp", "renormalize"] = "exp"


@dataclasses.dataclass(frozen=True)
class Model:
    name: Literal["sit", "lightning_dit"] = "sit"
    size: Literal["", "S", "B", "L", "XL"] = ""  # a published size, or "" for the three below
    width: int = option(192, 8)
    depth: int = option(6, 1)
    heads: int = option(6, 1)
    patch: int = option(1, 1)
    qk_norm: bool = False  # lightning_dit only
    time_embedding: Literal["sinusoid", "fourier"] = "sinusoid"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False  # recompute blocks in the backward pass
    unroll: bool = (
        True  # one program per layer (quick on CPU) or one scanned layer (quick to compile)
    )


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = option(1e-4, 0.0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = option(0, 0)
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
    accumulate: int = option(
        1, 1
    )  # micro-batches per step; the gradient is that of the whole batch
    ema_decay: float = option(0.999, 0.0, 0.999999)
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
class Sampler:
    solver: Literal["euler", "heun", "midpoint"] = "euler"
    steps: int = option(50, 1)
    guidance: float = option(1.0, 0.0)  # 1 is off and costs one network call
    guidance_low: float = option(0.0, 0.0, 1.0)  # guided for times in [low, high], t = 1 is noise
    guidance_high: float = option(1.0, 0.0, 1.0)
    batch_size: int = option(250, 1)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    samples: int = option(1000, 0)  # 0 skips scoring
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
    tokenizer: Tokenizer = Tokenizer()
    space: Space = Space()
    model: Model = Model()
    sampler: Sampler = Sampler()
    evaluation: Evaluation = Evaluation()
    mesh: Mesh = Mesh()

    def stage(self, name: str) -> Stage:
        return self.groups[name]


STAGE_TYPES = {"vae": VAEStage, "decoder": DecoderStage, "flow": FlowStage}


def read_config(raw: Mapping[str, Any]) -> Config:
    """The frozen, checked form of a config file's dictionary.

    Raises:
      UserError: unknown key (with the nearest known name), wrong type, value out of range, or
        values that exclude each other.
    """
    raw = dict(raw)
    stages = _value("config.stages", raw.pop("stages", ()), tuple[str, ...])
    if not stages:
        raise UserError("config.stages is empty; name at least one stage, say ('flow',).")
    groups, known = {}, _known_groups()
    for name in stages:
        if stages.count(name) > 1 or name in known:
            raise UserError(f"config.stages must name groups of its own, each once; not '{name}'.")
        if name not in raw:
            raise UserError(f"config.stages names '{name}' but there is no group config.{name}.")
        if not isinstance(raw[name], Mapping):
            raise UserError(f"config.{name} must be a group of values, not {raw[name]!r}.")
        group = dict(raw.pop(name))
        method = group.get("method", name)
        if method not in STAGE_TYPES:
            raise UserError(_unknown(f"config.{name}.method", method, STAGE_TYPES))
        groups[name] = _read(STAGE_TYPES[method], group | {"method": method}, f"config.{name}")
    for name in [k for k in raw if _is_stage(k, raw[k])]:
        raw.pop(name)  # a stage group that config.stages leaves out is not an error
    for key in raw:
        if key not in known:
            raise UserError(_unknown("config", key, [*known, *groups]))
    config = dataclasses.replace(_read(Config, raw | {"stages": stages}, "config"), groups=groups)
    _check_together(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dictionary, the inverse of `read_config`."""
    plain = dataclasses.asdict(config)
    return {"stages": list(plain.pop("stages")), **plain.pop("groups"), **plain}


def type_of(raw: Mapping[str, Any], path: list[str]) -> Any:
    """The type of the option at `path` (["flow", "steps"]) of a config file's dictionary.

    Raises:
      UserError: there is no such option (with the nearest known name).
    """
    hint, where = Config, "config"
    for key in path:
        if not dataclasses.is_dataclass(hint):
            raise UserError(f"{where} is a value, not a group.")
        hints = typing.get_type_hints(hint)
        if hint is Config:
            stages = {k: _stage_type(k, group) for k, group in raw.items() if _is_stage(k, group)}
            hints = {name: hints[name] for name in _known_groups()} | stages
        if key not in hints:
            raise UserError(_unknown(where, key, hints))
        hint, where = hints[key], f"{where}.{key}"
    return hint


def _known_groups() -> list[str]:
    """What a config has besides its stages."""
    return [field.name for field in dataclasses.fields(Config) if field.name != "groups"]


def _is_stage(name: str, group: Any) -> bool:
    return isinstance(group, Mapping) and ("method" in group or name in STAGE_TYPES)


def _stage_type(name: str, group: Mapping[str, Any]) -> type[Stage]:
    return STAGE_TYPES.get(group.get("method", name), Stage)


def _check_together(config: Config) -> None:
    """What no single value shows."""

    def check(holds: bool, sentence: str) -> None:
        if not holds:
            raise UserError(sentence)

    model, data, tokenizer = config.model, config.data, config.tokenizer
    check(
        model.size != "" or model.width % model.heads == 0,
        f"config.model.width={model.width} must be a multiple of heads={model.heads}.",
    )
    check(
        not model.qk_norm or model.name == "lightning_dit",
        "config.model.qk_norm=True needs config.model.name='lightning_dit'.",
    )
    check(
        model.time_embedding == "sinusoid" or model.name == "lightning_dit",
        "config.model.time_embedding='fourier' needs config.model.name='lightning_dit'.",
    )
    check(
        (tokenizer.name == "precomputed") == (data.source == "latents"),
        "config.data.source='latents' and config.tokenizer.name='precomputed' go together.",
    )
    if tokenizer.name == "precomputed":
        check(
            len(tokenizer.latent_shape) == 3 and min(tokenizer.latent_shape) > 0,
            "config.tokenizer.latent_shape must be (h, w, d) for precomputed latents.",
        )
        check(not data.flip, "config.data.flip=True needs images; precomputed latents have none.")
        trained = [s for s in config.stages if config.stage(s).method != "flow"]
        check(not trained, f"Stages {trained} need images; precomputed latents have none.")
    else:
        check(
            len(tokenizer.widths) > 0 and min(tokenizer.widths) > 0,
            f"config.tokenizer.widths={tokenizer.widths} must hold positive widths.",
        )
        methods = [config.stage(name).method for name in config.stages]
        check(
            methods[0] == "vae",
            f"config.stages={config.stages} must begin with a 'vae' stage, whose encoder the "
            "others need.",
        )
        fold = tokenizer.patch * 2 ** (len(tokenizer.widths) - 1)
        check(
            data.image_size % fold == 0,
            f"config.data.image_size={data.image_size} must be a multiple of {fold}, the "
            "tokenizer's downsampling.",
        )
    for name, stage in config.groups.items():
        check(
            stage.batch_size % stage.accumulate == 0,
            f"config.{name}.batch_size={stage.batch_size} must be a multiple of "
            f"accumulate={stage.accumulate}.",
        )
        if isinstance(stage, FlowStage):
            check(
                stage.time_low < stage.time_high,
                f"config.{name}.time_low must be below time_high.",
            )
            check(
                stage.time_density != "logit_normal" or (stage.time_low, stage.time_high) == (0, 1),
                f"config.{name}.time_low and time_high need "
                f"config.{name}.time_density='truncated_logit_normal'.",
            )
    check(
        config.sampler.guidance_low <= config.sampler.guidance_high,
        "config.sampler.guidance_low must not exceed guidance_high.",
    )


def _read(cls, raw: Mapping[str, Any], where: str):
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in hints:
            raise UserError(_unknown(where, key, hints))
    values = {}
    for field in dataclasses.fields(cls):
        if field.name not in raw:
            continue
        name = f"{where}.{field.name}"
        value = _value(name, raw[field.name], hints[field.name])
        low, high = field.metadata.get("low"), field.metadata.get("high")
        if low is not None and value < low:
            raise UserError(f"{name}={value} must be at least {low}.")
        if high is not None and value > high:
            raise UserError(f"{name}={value} must be at most {high}.")
        values[field.name] = value
    return cls(**values)


def _value(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type that `hint` asks for."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{name} must be a group of values, not {value!r}.")
        return _read(hint, value, name)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices or type(value) not in map(type, choices):
            raise UserError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}.")
        return value
    if origin is tuple:
        (kind, _) = typing.get_args(hint)
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise UserError(f"{name} must be a tuple of {kind.__name__}, not {value!r}.")
        return tuple(_value(f"{name}[{i}]", v, kind) for i, v in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UserError(f"{name} must be {hint.__name__}, not {value!r}.")
    if hint is float and not math.isfinite(value):
        raise UserError(f"{name}={value} must be a finite number.")
    return value


def _unknown(where: str, key: str, known) -> str:
    near = difflib.get_close_matches(str(key), list(known), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}."
    return f"{where} has no '{key}'; {hint}"
