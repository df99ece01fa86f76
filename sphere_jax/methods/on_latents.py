"""Shared by generators on a tokenizer's latents: a data set of images encoded to latents.

Images are encoded before training, into memory, or in every step; `sphere_jax.prepare latents`
encodes those of a large set into files.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Keys, Latents, OneKey, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, StageOptions
from sphere_jax.data.cached_latents import NAMES, as_used, not_finite
from sphere_jax.data.lazy_pictures import name_of
from sphere_jax.data.memory import check_fits
from sphere_jax.data.source import Source, Split
from sphere_jax.geometry import sphere
from sphere_jax.methods.base import Batch, Drawn, Generator, MapOver, Params, Pictures, space_of
from sphere_jax.nn.pixels import Rounding, to_float, to_uint8
from sphere_jax.sampling import folded, noise_of
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.weights.layouts import generators
from sphere_jax.weights.stored import WeightsFile

MEASURED = 2000  # held-out examples that a finished stage is measured on
POSTERIOR = zlib.crc32(b"posterior")  # folded into the key of an example that is sampled


@dataclasses.dataclass(frozen=True)
class OnLatentsOptions(StageOptions):
    """What every generator on latents has."""

    label_dropout: float = option(0.1, 0.0, 1.0, help="part of labels replaced by the null label")
    encode: Literal["once", "every_step"] = option(
        "once", help="images; once: into memory, and without random flips"
    )


def encoded(
    tokenizer: Tokenizer, params: Params, map_over: MapOver, *sources: Source, samples: bool = False
) -> list[Source]:
    """Every image encoded once, to what samples are drawn from if `samples`; sources of latents are
    returned unchanged. Raises UserError for latents that are not finite."""

    def encode(p, images):  # the same for all sources: compiled once
        if samples:
            return dict(zip(NAMES, tokenizer.moments(p, to_float(images)), strict=True))
        return {"latents": tokenizer.encode(p, to_float(images))}

    return [_mapped(source, encode, params, map_over) for source in sources]


def _mapped(source: Source, encode: Callable, params: Params, map_over: MapOver) -> Source:
    if "images" not in source.arrays:
        return source
    images = source.arrays["images"]
    found = map_over(encode, params, images)
    for latents in found.values():
        wrong = np.flatnonzero(not_finite(latents))
        if len(wrong):
            raise UserError(
                f"The tokenizer gives latents that are not finite for {name_of(images, wrong[0])}; "
                "check its weights, or leave the image out."
            )
    return Source({**found, "labels": source.arrays["labels"]})


def latent_bytes(tokenizer: Tokenizer) -> int:
    """Bytes of one encoded image, as float32."""
    return 4 * math.prod(tokenizer.latent_shape)


def encoded_split(tokenizer: Tokenizer, split: Split, params: Params, map_over: MapOver) -> Split:
    """Both parts of a data set, encoded. Raises UserError if they would not fit into memory."""
    if "images" in split.train.arrays:
        count = len(split.train) + len(split.heldout)
        check_fits(
            f"The latents of {count:,} images, encoded once,",
            count * latent_bytes(tokenizer) * (1 + tokenizer.samples),
            "encode them into files with python -m sphere_jax.prepare latents, or in every step "
            "with encode='every_step'",
        )
    parts = (split.train, split.heldout)
    return Split(*encoded(tokenizer, params, map_over, *parts, samples=tokenizer.samples))


def spaced_subset(source: Source, count: int = MEASURED) -> Source:
    """At most `count` of its examples, evenly spaced, in memory and in order."""
    rows = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    return Source(source.read(rows))


class OnLatents(Generator):
    """A generator with one network, on the latents of a frozen tokenizer.

    A subclass is a dataclass with `tokenizer`, `space`, `network`, `num_classes`, `options` and
    `sampler`.
    """

    reads = ("space", "model", "projection")
    on_latents = True
    takes_time = True  # its network has a time input
    network_parameters = "network"
    trains = ("network",)

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        stage: OnLatentsOptions = config.stage(name)
        if config.network.takes_time != cls.takes_time:
            fitting = " or ".join(f"'{network}'" for network in _networks(cls.takes_time))
            raise UserError(
                f"config.{name} needs a network {'with' if cls.takes_time else 'without'} a time "
                f"input: config.model.name={fitting}, not '{config.model.name}'."
            )
        check(
            not config.data.flip
            or stage.encode == "every_step"
            or config.source.holds_flips
            or not all(config.method(other).on_latents for other in config.stages),
            "config.data.flip=True does nothing to latents that are encoded once: set "
            f"config.{name}.encode='every_step', or encode both flips by sphere_jax.prepare "
            "latents.",
        )
        check(
            config.data.random_crop == ()
            or stage.encode == "every_step"
            or not all(config.method(other).on_latents for other in config.stages),
            "config.data.random_crop does nothing to latents that are encoded once: set "
            f"config.{name}.encode='every_step'.",
        )
        check(
            stage.encode == "once" or config.tokenizer_class.decodes,
            f"config.{name}.encode='every_step' needs images; config.data.source="
            f"'{config.data.source}' has latents.",
        )

    @classmethod
    def has_null_label(cls, config: Config, name: str) -> bool:
        stage = config.stage(name)
        return stage.label_dropout > 0.0 or stage.pretrained != ""

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "OnLatents":
        options, classes = config.stage(name), config.data.num_classes
        if not config.source.holds_images:  # nothing is left to encode
            options = dataclasses.replace(options, encode="once")
        return cls(
            tokenizer=tokenizer,
            space=space_of(config, tokenizer.latent_shape),
            network=config.network.build(config.model, tokenizer.latent_shape, classes),
            num_classes=classes,
            options=options,
            sampler=cls.make_sampler(config, name, tokenizer),
        )

    @property
    def has_images(self) -> bool:
        return self.tokenizer.decodes

    def notes(self) -> list[str]:
        return self.tokenizer.notes()

    def frozen(self, artifacts: Params) -> Params:
        # Of a run on cached latents the encoder was not loaded.
        return {name: artifacts[name] for name in self.tokenizer.parts if name in artifacts}

    def init(self, key: OneKey, frozen: Params) -> Params:
        return {"network": self.network.init(key)}

    def pretrained(self) -> dict[str, Any] | None:
        """The weights of `options.pretrained`: converted, averaged by `sphere_jax.ema`, or as
        published."""
        if not self.options.pretrained:
            return None
        return {"network": self.network_file(self.options.pretrained)}

    def network_file(self, path: str) -> WeightsFile:
        """Its network in a file."""
        return WeightsFile(
            path, None, self.network, generators.layouts, part=self.network_parameters
        )

    def training_data(self, split: Split, frozen: Params, map_over: MapOver) -> Split:
        """Every image encoded once, or unchanged; the projection happens in the loss."""
        if self.options.encode == "every_step":
            return split
        return encoded_split(self.tokenizer, split, frozen, map_over)

    def latents_of(self, frozen: Params, batch: Batch, keys: Keys | None = None) -> Latents:
        """Normalised latents (B, h, w, d) of a batch, which holds them or its images.

        Where the tokenizer samples, they are drawn by keys made from those (B,) of the examples.

        Raises:
          ValueError: it samples, and there are no keys.
        """
        if "latents" in batch:
            batch = as_used(batch)
            mean, std = batch["latents"], batch.get("latent_std")
        elif self.tokenizer.samples:
            mean, std = self.tokenizer.moments(frozen, to_float(batch["images"]))
        else:
            mean, std = self.tokenizer.encode(frozen, to_float(batch["images"])), None
        if std is None:
            return mean
        if keys is None:
            raise ValueError("latents that are sampled need the keys of the examples")
        return mean + std * noise_of(folded(keys, POSTERIOR), mean.shape[1:])

    def made_by_frozen(self, frozen: Params, batch: Batch) -> Latents | None:
        if "latents" in batch:
            return None
        return self.tokenizer.encode(frozen, to_float(batch["images"]))

    def batch_shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        if self.options.encode == "every_step":
            return super().batch_shapes()
        latents = self.tokenizer.latent_shape, np.float32
        return dict.fromkeys(NAMES[: self._arrays], latents) | {"labels": ((), np.int32)}

    def memory_of_example(self) -> int | None:
        each = self._arrays * latent_bytes(self.tokenizer)
        return each if self.options.encode == "once" else None

    @property
    def _arrays(self) -> int:
        """Of an encoded example: latents, or means and standard deviations."""
        return 1 + self.tokenizer.samples

    def fixed_tables(self) -> dict[str, int]:
        return {"network": self.network.module.fixed_table_size}

    def images(
        self,
        params: Params,
        samples: Drawn,
        radius: Scalar = 0.0,
        rounding: Rounding = "nearest",
    ) -> Pictures:
        """Decoded (B, H, W, C) uint8."""
        decoded = self.tokenizer.decode(params, self.at_radius(params, samples, radius))
        return to_uint8(decoded, rounding)

    def at_radius(self, params: Params, samples: Latents, radius: Scalar) -> Latents:
        """Samples with tokens of another radius than the flow's, where a decoder is better there
        (arXiv 2601.22904, Algorithms 1 and 2; arXiv 2602.10099; docs/systems/hae.md#flow, #rjf); 0
        leaves them."""
        return jnp.where(radius > 0.0, sphere.normalize(samples, radius), samples)


def _networks(with_time: bool) -> list[str]:
    """Names of networks with a time input, or without."""
    known = plugins.known("models", "NETWORK")
    found = {name: plugins.find("models", "NETWORK", name, "config.model.name") for name in known}
    return [name for name, network in found.items() if network.takes_time == with_time]
