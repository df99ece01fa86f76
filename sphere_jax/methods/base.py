"""What a method is: one system's objective, with everything that is specific to that system.

A method is one file of this folder, found by its name: `config.STAGE.method="flow"` is `METHOD` of
`methods/flow.py`; a name with a dot is a module of another package. Nothing outside that file knows
it. All functions are pure functions of arrays: a method knows neither meshes nor files.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int, Shaped, UInt8

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import AnyArray, Keys, Labels, OneKey, Scalar
from sphere_jax.config.options import Config, SamplerOptions, StageOptions
from sphere_jax.data.source import Split
from sphere_jax.evaluation.page import Block, measured_table
from sphere_jax.geometry.spaces import Space, make_space
from sphere_jax.nn.pixels import Rounding
from sphere_jax.sampling import sample_keys
from sphere_jax.tokenizers.base import Tokenizer

Params = dict[str, Any]  # nested: parameters by artifact, `frozen` too
Batch = dict[str, AnyArray]  # "images" uint8 (B, H, W, C) or "latents" (B, h, w, d); "labels" (B,)
Pictures = UInt8[AnyArray, "pictures height width channels"]
Drawn = Float32[AnyArray, "batch ..."]  # latents, or images that are float
Passed = Float32[AnyArray, "points batch ..."]  # what a sampler passes through, as Drawn
Trace = dict[str, Float[AnyArray, " times"]]
Loss = tuple[Scalar, dict[str, Scalar]]
Arrays = dict[str, Shaped[np.ndarray, "..."]]  # measured, by name
MapOver = Callable[..., Any]  # (function, params, *arrays) -> its results over whole host arrays


@dataclasses.dataclass(frozen=True)
class Tools:
    """What `measure` is given: `map_over` a whole data set on the devices, and the reconstruction
    metrics for which there are weights (`evaluation.fidelity.Fidelity`; None unless
    `Method.measures_fidelity`)."""

    map_over: MapOver
    fidelity: Any = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`artifacts` feed later stages, `metrics` the report's tables, `arrays` its figures."""

    artifacts: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    arrays: Arrays = dataclasses.field(default_factory=dict)


class Method:
    """One system's objective.

    Facts of the class, read before anything is built:
      Options: its options, a subclass of `StageOptions` whose `method` is its name.
      SamplerOptions: those of its sampler; None for a method that does not generate.
      reads: what its weights depend on besides seed, data, tokenizer and its own options: names of
        config groups, or "projection", what `config.space` does to latents before decoding.
      reads_of_tokenizer: the options of the tokenizer that its weights depend on; None: all.
      on_latents: it trains on latents, and needs no images where the data are latents.
      trains_tokenizer: name of the tokenizer that it trains from scratch, if any.
      measures_fidelity: `measure` compares reconstructions by `Tools.fidelity`.
      noise_options: its options that change which random numbers a batch is given.
      network_options: its options that change the parameters that it starts from.
      edits: the actions of `sphere_jax.edit` that it has, by its `refine`, with the sampler options
        that they have unless a user gives others; None for one without a sampler.

    Facts of an instance:
      trains: the names of its parameters among a run's artifacts.
      rates: learning rates of some of them, over the optimizer's.
      starts: steps from which some of them learn, with moments and a schedule of their own.
      joins: steps until which some of them stay as they are, decay of weights included.
      clipped_apart: those whose gradient is clipped by a norm of its own.
      is_transformer: its loss is matrix products without convolutions.
      preview_columns: pictures in a row of a preview.
    """

    Options: ClassVar[type[StageOptions]]
    SamplerOptions: ClassVar["type[SamplerOptions] | None"] = None
    reads: ClassVar[tuple[str, ...]] = ()
    reads_of_tokenizer: ClassVar[tuple[str, ...] | None] = None
    on_latents: ClassVar[bool] = False
    trains_tokenizer: ClassVar[str] = ""
    measures_fidelity: ClassVar[bool] = False
    noise_options: ClassVar[tuple[str, ...]] = ("batch_size",)
    network_options: ClassVar[tuple[str, ...]] = ()
    edits: ClassVar[Mapping[str, Mapping[str, Any] | None]] = {}

    trains: tuple[str, ...] = ()
    rates: dict[str, float] = {}
    starts: dict[str, int] = {}
    joins: dict[str, int] = {}
    clipped_apart: tuple[str, ...] = ()
    is_transformer = False
    preview_columns = 16

    @classmethod
    def title(cls, config: Config) -> str:
        """Its name in reports."""
        return cls.__name__

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        """Raises UserError, in one sentence, for options of stage `name` that do not fit."""

    @classmethod
    def changes_latents(cls, options: Mapping[str, Any]) -> bool:
        """Whether later stages on latents depend on what a stage with these options trains."""
        return True

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "Method":
        """The method of stage `name`: nothing is allocated. Raises UserError."""
        raise NotImplementedError

    def frozen(self, artifacts: Params) -> Params:
        """Its frozen parameters, from earlier stages and from `files`."""
        return {}

    def files(self) -> dict:
        """Frozen parameters that come from files: a tree of `weights.stored.WeightsFile` by the
        names of artifacts, for the run to load."""
        return {}

    def pretrained(self) -> dict | None:
        """Parameters to start from in place of `init`: a tree like `files`, or None."""
        return None

    def notes(self) -> list[str]:
        """Sentences for the log before training starts."""
        return []

    def init(self, key: OneKey, frozen: Params) -> Params:
        """Fresh parameters, a dict with the keys `trains`."""
        raise NotImplementedError

    def training_data(self, split: Split, frozen: Params, map_over: MapOver) -> Split:
        """The `data.source.Split` that its batches come from. Raises UserError for a data set that
        it cannot train on or be measured on."""
        return split

    def batch_shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """What one example of a batch holds: shape and dtype by name; images by default."""
        return {"images": (self.tokenizer.image_shape, np.uint8), "labels": ((), np.int32)}

    def memory_of_example(self) -> int | None:
        """Bytes that a training image takes in memory where all are encoded beforehand."""
        return None

    def fixed_tables(self) -> dict[str, int]:
        """Scalars that published counts of its parts have beyond the parameters here."""
        return {}

    def keys(self, key: OneKey, size: int) -> Any:
        """All random numbers of a batch of `size`: a tree of arrays with one row a sample, so that
        splitting a batch over micro-batches or devices changes none. By default one key each.
        """
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(size))

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: Any) -> Loss:
        """The loss, a float32 scalar, and more scalars by name."""
        raise NotImplementedError

    def made_by_frozen(self, frozen: Params, batch: Batch) -> Drawn | None:
        """What frozen parts make of the examples of a batch in every step, (B, ...), to look for
        the cause where a step is not finite; None where they make nothing."""
        return None

    def schedule(self, step: Int[AnyArray, ""]) -> dict[str, Scalar]:
        """Scalars that depend on the number of steps before this one, int32 and traced. Where there
        are any, training (and nothing else) gives them to `loss` as `frozen["schedule"]`.
        """
        return {}

    def advance(self, params: Params) -> Params:
        """Parameters after an update, with what no gradient moves brought up to date: the vectors
        of a power iteration, say."""
        return params

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """uint8 images (N, H, W, C) to look at while it trains, or None."""
        return None

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Artifacts and metrics of a finished stage."""
        return Outcome()

    def artifact_shapes(self) -> dict[str, Any]:
        """Shapes of the artifacts of `measure`."""
        return {}

    def measured_with(self) -> dict[str, Any]:
        """What `measure` depends on, ready for JSON, if it may change between two starts: a
        finished stage is then measured again."""
        return {}

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        """What the report shows of what `measure` found."""
        return [measured_table(metrics)] if metrics else []


class Generator(Method):
    """A method that also generates.

    num_classes: K; label K is the null label.
    sampler: hashable settings with `steps`, `scale` (guidance; 1 is off), `with_scale(scale)`,
      `evaluations` (NFE, counted from the settings; None if they are counted when they are made),
      `decode_radius` and a `str` in words.
    has_images: whether `images` can be called here.
    shows_path: whether it has `path`, of which reports show pictures.
    conditional: whether samples depend on labels.
    network_parameters: the artifact with the network that is exported and that `network_file(path)`
      finds in a file (`weights.stored.WeightsFile`); "" if there is none.
    """

    network_parameters: ClassVar[str] = ""

    num_classes: int
    sampler: Any
    has_images = True
    shows_path = False
    conditional = True
    is_transformer = True
    preview_columns = 8

    @classmethod
    def check_sampler(cls, config: Config) -> None:
        """Raises UserError for options of `config.sampler` that do not fit the rest."""

    @classmethod
    def has_null_label(cls, config: Config, name: str) -> bool:
        """Whether stage `name` learns the null label, which guidance moves away from."""
        return True

    @classmethod
    def make_sampler(cls, config: Config, name: str, tokenizer: Tokenizer) -> Any:
        """The sampler that `config.sampler` asks for."""
        raise NotImplementedError

    def guided_by(self, weaker: Method | None) -> "Generator":
        """This generator with guidance away from the network of `weaker`, whose parameters are
        `params["weaker"]`.

        Raises:
          ValueError: that network cannot guide it.
        """
        raise ValueError("can guide only methods with auto-guidance")

    def generate(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: Any
    ) -> tuple[Drawn, Trace]:
        """`(samples (B, ...), trace)` for typed keys (B,) and labels (B,).

        `scale` may be traced and is read only where the sampler's guidance is on. `trace` holds
        what changed along the path, as arrays (steps + 1,); and `evaluations` (B,) that were made
        for each sample, NaN for one that could not be finished, where the sampler cannot tell.
        """
        raise NotImplementedError

    def path(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: Any
    ) -> Passed:
        """What the sampler of `generate` passes through, (points, B, ...), each as `images` takes
        it; the last is the sample."""
        raise NotImplementedError

    def images(
        self,
        params: Params,
        samples: Drawn,
        radius: Scalar = 0.0,
        rounding: Rounding = "nearest",
    ) -> Pictures:
        """Samples as uint8 images (B, H, W, C), their tokens brought to `radius` before they are
        decoded; 0 leaves them. It is the sampler's `decode_radius`, and may be traced. `rounding`
        of pixels as of `nn.pixels.to_uint8`.
        """
        raise NotImplementedError

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """Samples of every class (of the first ten), one class a row; always the same noise."""
        if not self.has_images:
            return None
        labels = jnp.repeat(jnp.arange(min(self.num_classes, 10)), self.preview_columns)
        keys = sample_keys(key, jnp.arange(len(labels)))
        samples, _ = self.generate(params, keys, labels, self.sampler.scale, self.sampler)
        return self.images(frozen, samples, self.sampler.decode_radius)

    def drop_labels(self, keys: Keys, labels: Int[AnyArray, " batch"]) -> Int[AnyArray, " batch"]:
        """Labels (B,), the null label for `options.label_dropout` of them, by keys (B,)."""
        dropped = jax.vmap(jax.random.uniform)(keys) < self.options.label_dropout
        return jnp.where(dropped, self.num_classes, labels)


def space_of(config: Config, latent_shape: tuple[int, int, int]) -> Space:
    """The space that a config names. Raises UserError for a radius that the sphere cannot have."""
    space = config.space
    try:
        return make_space(space.path, space.sphere, space.radius, latent_shape, space.retraction)
    except ValueError as error:
        raise UserError(f"config.space: {error}.") from error
