"""Sampling, scoring, devices, and the config of a whole run."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from sphere_jax.config.options.data import Data, ImageSource
from sphere_jax.config.options.models import Model, SiTModel, Space
from sphere_jax.config.options.option import option
from sphere_jax.config.options.stages import Stage
from sphere_jax.config.options.tokenizers import ConvVAETokenizer, Tokenizer


@dataclasses.dataclass(frozen=True)
class Sampler:
    steps: int = option(50, 1)
    guidance: float = option(1.0, 0.0)  # 1 is off and costs one network call
    batch_size: int = option(250, 1)


@dataclasses.dataclass(frozen=True)
class FlowSampler(Sampler):
    solver: Literal["euler", "heun", "midpoint", "multistep"] = "euler"
    t_end: float = option(0.0, 0.0, 0.999)  # where the last step ends, before the shift; 0 is data
    guidance_low: float = option(0.0, 0.0, 1.0)  # guided for times in [low, high], t = 1 is noise
    guidance_high: float = option(1.0, 0.0, 1.0)
    auto_guidance: str = ""  # run folder of a weaker network, in the place of no label
    decode_radius: float = option(0.0, 0.0)  # of decoded tokens; 0: the space's own


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


Features = Literal[
    "small_classifier",
    "inception_fid",
    "efficientnet_lite0",
    "dinov2_vitb14_reg",
    "dinov2_vitl14_reg",
    "dinov3_vits16",
    "dinov3_vitb16",
]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    samples: int = option(1000, 0)  # 0 skips scoring
    at_steps: tuple[int, ...] = ()  # numbers of sampling steps to score besides the sampler's own
    neighbours: int = option(3, 1)  # k of precision and recall
    features: Features = "small_classifier"  # what distributions are compared in
    pretrained: str = ""  # weights of published features: what sphere_jax.convert wrote
    lpips: str = ""  # LPIPS-AlexNet weights, for decoders; "": not measured
    classifier_steps: int = option(300, 1)  # of the small classifier
    every: int = option(0, 0)  # steps of the stage that generates; 0: scored at its end alone
    curve_samples: int = option(1000, 2)  # drawn each time
    data_source: Literal["", ImageSource] = ""  # images whose latents a cache holds; "": it says
    data_path: str = ""


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
