"""The options that all runs share, as frozen dataclasses: types, defaults, ranges, meanings.

What belongs to one method, tokenizer or network is in its own file: `methods/flow.py` has
`FlowOptions`. `reading.py` turns a config file into these.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from sphere_jax.common import plugins
from sphere_jax.config.option import kind, option

Remat = Literal["none", "products", "blocks"]  # `nn/remat.py` does it


def remat_option(of: str = ""):
    """The option `remat` of a network, or of a part of it: `of` may be "of the decoder "."""
    what = "recomputes: nothing, all but the results of linear layers (products), or whole blocks"
    help = f"what the backward pass {of}{what}"
    return option("none", help=help, former_values={False: "none", True: "blocks"})


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Images, and where they come from."""

    source: str = option(
        "mnist5k", plugin=("data.sources", "SOURCE"), help="a file of data/sources/, or a module"
    )
    path: str = option(
        "", path=True, moves="nothing", help="its file, folder or name: see the source"
    )
    image_size: int = option(32, 8, help="images are padded (28 -> 32) or resized to this")
    resize: Literal["bicubic", "nearest", "adm"] = option(
        "bicubic", help="how, before a centre crop"
    )
    random_crop: tuple[int, ...] = option(
        (), help="the least and greatest shorter side that a training picture is brought to "
        "before a random crop; (): the centre's. For pictures in files",
    )  # fmt: skip
    channels: Literal[1, 3] = option(1, help="1 is grey, 3 is RGB")
    labels: Literal["given", "none"] = option(
        "given", help="those of the source, or none: all examples are one class"
    )
    num_classes: int = option(
        10, 0, 1_000_000, help="labels are 0..num_classes-1; 0: as many as the data have"
    )
    flip: bool = option(False, help="random horizontal flip of training images")
    threads: int = option(
        -1, -1, 64, moves="nothing", help="that read ahead, a batch each; 0: the main thread "
        "reads; -1: one a core, at most 16, for data in files, and 0 for data in memory",
    )  # fmt: skip
    workers: int = option(
        0, 0, 64, moves="nothing", help="processes that read data in files, instead of threads"
    )


@dataclasses.dataclass(frozen=True)
class SpaceOptions:
    """The space of latents."""

    path: Literal["linear", "polar", "data_projected", "shell_linear", "nlerp", "slerp"] = option(
        "slerp", help="from data to noise; linear and polar leave latents as they are"
    )
    sphere: Literal["token", "global"] = option(
        "token", help="one sphere a latent position, or one for the whole latent"
    )
    radius: float = option(0.0, 0.0, help="of the token sphere; 0: sqrt(d)")
    retraction: Literal["exp", "renormalize"] = option(
        "exp", moves="samples", help="how a sampler's step returns to the sphere"
    )

    @property
    def projects(self) -> bool:
        """Whether data latents are put on a sphere."""
        return self.path not in ("linear", "polar")

    @property
    def projection(self) -> str:
        """Projection of latents before they are decoded, as text."""
        if not self.projects:
            return "none"
        return f"{self.sphere} sphere of radius {self.radius or 'sqrt(d)'}"


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """What every network on latents has.

    parameterization: what it predicts, a velocity unless a network has the option; see
      models/parameterization.py.
    """

    parameterization: ClassVar[str] = "noise_at_one"

    name: str = option("", help="a file of models/ with a NETWORK, or a module")
    width: int = option(192, 8, help="channels of a token")
    depth: int = option(6, 1, help="blocks")
    heads: int = option(6, 1, help="of attention")
    patch: int = option(1, 1, help="latent positions a token, along each side")
    compute_dtype: Literal["float32", "bfloat16"] = option("float32", help="of products")
    remat: Remat = remat_option()
    unroll: bool = option(
        True, help="one program a layer (quick on CPU), or one scanned layer (quick to compile)"
    )


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """AdamW, or Muon for matrices beside it, and its schedule."""

    learning_rate: float = option(1e-4, 0.0, help="at the peak")
    matrices: Literal["adamw", "muon"] = option(
        "adamw", help="optimizer of the kernels of linear layers; AdamW for all others"
    )
    muon_rate: float = option(10.0, 0.0, help="Muon's learning rate over learning_rate")
    muon_momentum: float = option(0.95, 0.0, 0.999999, help="of Muon, with Nesterov's step")
    muon_decay: float = option(0.0, 0.0, help="weight decay of Muon")
    schedule: Literal["constant", "cosine", "linear"] = option(
        "constant", help="how it falls from the peak"
    )
    warmup: int = option(0, 0, help="steps of linear warm-up")
    constant_steps: int = option(0, 0, help="at the peak, after the warm-up, before the fall")
    hold: int = option(0, 0, help="steps at the end, after the fall")
    fall_steps: int = option(0, 0, help="of the fall, perhaps beyond the end; 0: all that are left")
    final_fraction: float = option(0.0, 0.0, 1.0, help="the fall ends at this part of the peak")
    b1: float = option(0.9, 0.0, 0.999999, help="decay of the first moment")
    b2: float = option(0.999, 0.0, 0.999999, help="decay of the second moment")
    eps: float = option(1e-8, 0.0, help="of AdamW, beside the root of the second moment")
    weight_decay: float = option(0.0, 0.0, help="on matrices and kernels only")
    clip_norm: float = option(1.0, 0.0, help="most of the global gradient norm; 0 is off")


@dataclasses.dataclass(frozen=True)
class StageOptions:
    """What every stage has, whatever it trains."""

    method: str = option("", help="a file of methods/, or a module; by default the stage's name")
    steps: int = option(1000, 0, help="of training; 0 uses `pretrained` unchanged")
    pretrained: str = option(
        "", file=True, help="weights to start from: a run folder, or a file of sphere_jax.convert, "
        "of sphere_jax.ema or, of a network on latents, as published",
    )  # fmt: skip
    pretrained_anyway: bool = option(
        False, moves="nothing", help="though they were trained on another path, space or tokenizer"
    )
    batch_size: int = option(128, 1, help="examples a step, over all devices")
    accumulate: int = option(
        1, 1, help="micro-batches a step; the gradient is that of the whole batch"
    )
    most_per_device: int = option(
        0, 0, moves="nothing", help="examples of a micro-batch on one device; a step takes more "
        "micro-batches than `accumulate` where that needs it; 0: no bound",
    )  # fmt: skip
    ema_decay: float = option(0.999, 0.0, 0.999999, help="of the average of weights, a step")
    ema_profiles: tuple[float, ...] = option(
        (), help="relative widths of further averages (Karras et al. 2024)"
    )
    ema_snapshot_every: int = option(
        0, 0, moves="nothing", help="steps between snapshots of these, for sphere_jax.ema"
    )
    weights: Literal["ema", "raw"] = option("ema", help="what later stages and samples use")
    skip_nonfinite: int = option(
        0, 0, moves="nothing", help="steps with a NaN to skip before stopping"
    )
    log_every: int = option(50, 1, moves="nothing", help="steps")
    checkpoint_every: int = option(500, 1, moves="nothing", help="steps")
    preview_every: int = option(500, 1, moves="nothing", help="steps")
    optimizer: OptimizerOptions = OptimizerOptions()

    @property
    def micro_multiple(self) -> int:
        """A micro-batch is a multiple of this."""
        return 1


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """What every sampler has."""

    steps: int = option(50, 1, swept=True, help="from noise to data")
    guidance: float = option(
        1.0, 0.0, swept=True, help="guidance scale; 1 is off and costs one network call"
    )
    batch_size: int = option(250, 1, moves="samples", help="images at a time")

    @property
    def weaker_run(self) -> str:
        """Folder of the run whose network guidance moves away from; "" for none."""
        return ""


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """Scores of samples and reconstructions."""

    samples: int = option(1000, 0, help="drawn and scored at the end; 0 skips scoring")
    at_steps: tuple[int, ...] = option(
        (), help="numbers of sampling steps to score besides the sampler's own"
    )
    neighbours: int = option(3, 1, help="k of precision and recall")
    features: str = option(
        "small_classifier",
        plugin=("evaluation.features", "FEATURES"),
        help="network whose features are compared: a file of evaluation/features/, or a module",
    )
    pretrained: str = option("", file=True, help="its weights, from sphere_jax.convert")
    lpips: str = option("", file=True, help="LPIPS-AlexNet weights, for decoders; '': not measured")
    classifier_steps: int = option(300, 1, help="of the small classifier's training")
    every: int = option(
        0, 0, help="steps between scores of the stage that generates; 0: only at its end"
    )
    curve_samples: int = option(1000, 2, help="samples for each of these scores")
    curve_weights: Literal["used", "both"] = option(
        "used", help="scored there: those that the stage uses, or averaged and raw ones"
    )
    keep_best: Literal["", "frechet_distance", "precision", "recall", "class_agreement"] = option(
        "", help="the score whose best weights are kept, for --weights=best"
    )
    data_source: str = option(
        "",
        plugin=("data.sources", "SOURCE"),
        help="images whose latents a cache holds; '': those named in the cache",
    )
    data_path: str = option("", path=True, help="of data_source")


@dataclasses.dataclass(frozen=True)
class MeshOptions:
    """Devices."""

    data: int = option(-1, -1, help="devices the batch is split over; -1: all that are left")
    fsdp: int = option(
        1, 0, help="devices that the batch, parameters, optimizer state and EMA are sharded over; "
        "0: as many as divide 16 and the devices that tensor leaves",
    )  # fmt: skip
    tensor: int = option(
        1, 1, help="devices that split each transformer layer and share its examples; for chips "
        "with one image each; heads and hidden features should be multiples of it",
    )  # fmt: skip
    zero: bool = option(
        True, help="what fsdp and tensor shard is stored sharded over data, too, and gathered in "
        "each step",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints of all stages."""

    keep_last: int = option(
        2, 1, moves="nothing", help="newest ones of a stage that are kept; one more while it trains"
    )
    store: str = option(
        "", path=True, moves="nothing",
        help="gs://BUCKET/FOLDER that holds them, of this run alone; '': the run folder does",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `stages` names the groups to train, in order."""

    stages: tuple[str, ...] = option(dataclasses.MISSING, help="groups to train, in order")
    groups: Mapping[str, StageOptions] = dataclasses.field(default_factory=dict)
    seed: int = option(0, 0, 2**32 - 1, help="of everything that is drawn")
    data: DataOptions = DataOptions()
    tokenizer: Any = kind("tokenizers", "TOKENIZER", "conv_vae")
    space: SpaceOptions = SpaceOptions()
    model: Any = kind("models", "NETWORK", "sit")
    sampler: Any = SamplerOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    mesh: MeshOptions = MeshOptions()
    checkpoints: CheckpointOptions = CheckpointOptions()

    def stage(self, name: str) -> Any:
        """The options of a stage."""
        return self.groups[name]

    def method(self, name: str) -> Any:
        """The class of a stage's method (`methods.base.Method`)."""
        return plugins.find("methods", "METHOD", self.stage(name).method, f"config.{name}.method")

    @property
    def generator(self) -> str | None:
        """The last stage that generates."""
        named = [name for name in self.stages if self.method(name).SamplerOptions is not None]
        return named[-1] if named else None

    @property
    def tokenizer_class(self) -> Any:
        """`tokenizers.base.Tokenizer` of this config."""
        return plugins.find("tokenizers", "TOKENIZER", self.tokenizer.name, "config.tokenizer.name")

    @property
    def trains_tokenizer(self) -> bool:
        """Whether a stage gives some of the tokenizer's weights, and no file or other run."""
        return self.tokenizer_class.trained_by_run(self.tokenizer)

    @property
    def network(self) -> Any:
        """`models.latent_network.LatentNetwork` of this config."""
        return plugins.find("models", "NETWORK", self.model.name, "config.model.name")

    @property
    def features(self) -> Any:
        """The feature network of scores (`evaluation.features.base.FeatureNetwork`)."""
        return features_of(self.evaluation)

    @property
    def source(self) -> Any:
        """`data.source.DataSource` of this config."""
        return source_of(self.data)


def source_of(data: DataOptions) -> Any:
    """The data source that some data options name."""
    return plugins.find("data.sources", "SOURCE", data.source, "config.data.source")


def features_of(evaluation: EvaluationOptions) -> Any:
    """The feature network that some evaluation options name."""
    name, where = evaluation.features, "config.evaluation.features"
    return plugins.find("evaluation.features", "FEATURES", name, where)
