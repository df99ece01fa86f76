"""What a tokenizer is: images to latents and back, with everything that is specific to it.

A tokenizer is one file of this folder, found by its name: `config.tokenizer.name="rae"` is
`TOKENIZER` of `tokenizers/rae.py`; a name with a dot is a module of another package.
"""

import dataclasses
import json
from typing import Any, ClassVar, Literal

from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, Images, Latents
from sphere_jax.config.option import leaves, option
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.nn.functional import Params
from sphere_jax.weights.stored import WeightsFile, fingerprint_of

Channels = Float[AnyArray, " d"]


def joined(loaded: dict[str, Params]) -> Params:
    """Parameters by parts, from those of `Tokenizer.files`."""
    whole = loaded.pop("", {})
    return {**whole, **loaded}


@dataclasses.dataclass(frozen=True)
class TokenizerOptions:
    """What every tokenizer has."""

    name: str = option("", help="a file of tokenizers/, or a module")

    @property
    def samples(self) -> bool:
        """Whether generators train on samples of the encoder's posterior."""
        return False


@dataclasses.dataclass(frozen=True)
class PosteriorOptions(TokenizerOptions):
    """Those of a tokenizer whose encoder gives a Gaussian for each image."""

    latents: Literal["mean", "sample"] = option(
        "mean",
        help="what generators train on: the mean of the posterior, or a sample of it that is drawn "
        "anew whenever an image is used",
    )

    @property
    def samples(self) -> bool:
        return self.latents == "sample"


class Tokenizer:
    """Pure functions of arrays; a subclass is a frozen dataclass.

    Facts of the class, read before anything is built:
      Options: its options, a subclass of `TokenizerOptions` whose `name` is its name.
      trained_here: its weights come from a stage of the run, not from files.
      decodes: it has a decoder; without one, latents are all there is.
      whitens_positions: measured statistics are mean and variance of every number of a latent, not
        mean and deviation of a channel.
      released_layout: what a run trained can be written as its authors' file has it.
      encoder_parts: those of `parts` that only `encode` reads.
      not_of_latents: its options that do not change latents, but their rounding or the decoder.

    Facts of an instance:
      latent_shape: (h, w, d). image_shape: (H, W, C), or None where it has no images.
      parts: the names of its parameters among a run's artifacts, as ("encoder", "decoder").
      last_layer: that of the decoder, in its parameters.
      samples: generators train on samples of `moments`, not on latents of `encode`. All else (
        reconstruction, decoder finetuning, editing, probes) uses `encode`.
    """

    Options: ClassVar[type[TokenizerOptions]]
    trained_here: ClassVar[bool] = False
    decodes: ClassVar[bool] = True
    whitens_positions: ClassVar[bool] = False
    released_layout: ClassVar[bool] = False
    encoder_parts: ClassVar[tuple[str, ...]] = ("encoder",)
    not_of_latents: ClassVar[tuple[str, ...]] = ("compute_dtype", "remat", "unroll", "latents")

    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int] | None
    parts: tuple[str, ...] = ()
    last_layer: str = ""
    samples: bool = False

    @classmethod
    def check(cls, config: Config) -> None:
        """Raises UserError, in one sentence, for options that do not fit the rest of the config."""

    @classmethod
    def trained_by_run(cls, options: Any) -> bool:
        """Whether some of its weights come from a stage of the run; by default all or none do."""
        return cls.trained_here

    @classmethod
    def build(cls, data: DataOptions, options: Any) -> "Tokenizer":
        """Nothing is allocated. Raises UserError for sizes that do not fit each other."""
        raise NotImplementedError

    def encode(self, params: Params, images: Images) -> Latents:
        """Float images (B, H, W, C) in [-1, 1] to normalised latents (B, h, w, d) float32."""
        raise NotImplementedError

    def moments(self, params: Params, images: Images) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the normalised latents of images, each as `encode` gives
        them; of tokenizers with `PosteriorOptions`."""
        raise NotImplementedError

    def decode(self, params: Params, latents: Latents) -> Images:
        """Normalised latents to float images, not clipped: (B, H, W, C) float32."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Sentences for the log before training starts."""
        return []

    # The following are for tokenizers with weights from files (`trained_by_run` is False).

    def files(self, options: Any) -> dict[str, WeightsFile]:
        """The files that options name, by the parts that they hold, "" for several parts."""
        return {}

    def load(self, options: Any) -> Params:
        """Those of its `parts` that files give: leaves of a converted file, or numpy arrays.

        Raises:
          UserError: an option that names a file is empty, or the file is not what it should be.
        """
        return joined({part: file.load() for part, file in self.files(options).items()})

    def shapes(self) -> Params:
        """Shapes of the arrays of `load`, without a file."""
        return {}

    @classmethod
    def latents_made_with(cls, data: DataOptions, options: Any) -> dict[str, Any]:
        """All that latents of images are a function of, ready for JSON: options by their keys, and
        fingerprints of weights. Raises UserError for a file of weights that cannot be read."""
        found: dict[str, Any] = {
            f"config.data.{name}": getattr(data, name)
            for name in ("image_size", "resize", "channels", "num_classes")
        }
        for key, leaf in leaves("config.tokenizer", options):
            if key.rpartition(".")[2] in cls.not_of_latents:
                continue
            if leaf.file:
                found[f"{key} fingerprint"] = fingerprint_of(leaf.value) if leaf.value else ""
            else:
                found[key] = leaf.value
        return json.loads(json.dumps(found))  # tuples are lists there

    @classmethod
    def statistics_to_apply(
        cls, data: DataOptions, options: Any, made_with: dict[str, Any]
    ) -> tuple[Channels, Channels] | None:
        """Mean and standard deviation (d,) by which cached latents, made with `made_with`, become
        those of `options`; None if they are not theirs but for statistics."""
        return None

    @classmethod
    def without_statistics(cls, options: Any) -> Any:
        """The options of latents whose statistics `sphere_jax.prepare statistics` measures.

        Raises:
          UserError: it takes no such statistics, or is given some.
        """
        from sphere_jax.common.errors import UserError

        raise UserError(f"config.tokenizer.name='{options.name}' takes no measured statistics.")

    @classmethod
    def statistics_source(cls, data: DataOptions, options: Any) -> tuple[str, str]:
        """The name of these statistics in a file, and the path of the weights they are of."""
        raise NotImplementedError
