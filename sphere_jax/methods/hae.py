"""The Hyperspherical Autoencoder (arXiv 2601.22904): a stem and a decoder around a frozen ViT, then
the decoder alone against a discriminator (docs/systems/hae.md#autoencoder-training)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from sphere_jax.common.shapes import Images, Latents, OneKey
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config
from sphere_jax.data.source import Split
from sphere_jax.evaluation.page import Block
from sphere_jax.losses.cosine import cosine_distance
from sphere_jax.methods.autoencoding import Autoencoding
from sphere_jax.methods.autoencoding_options import AutoencodingOptions
from sphere_jax.methods.base import Arrays, Loss, Outcome, Params, Tools
from sphere_jax.methods.hae_diagnostics import diagnose, show
from sphere_jax.tokenizers.hae import HAE


@dataclasses.dataclass(frozen=True)
class HAEOptions(AutoencodingOptions):
    """arXiv 2601.22904, Tables 9 and 10; docs/systems/hae.md#autoencoder-training."""

    method: str = "hae"
    encoder: Literal["train", "frozen"] = option("train", help="the stem; the ViT never learns")
    align: Literal["cosine", "mse", "none"] = option(
        "cosine", help="of the stem's tokens with those of the ViT's own patch embedding"
    )
    align_weight: float = option(0.5, 0.0, help="of the alignment to the teacher")
    noise_per: Literal["sample", "batch"] = option("batch", help="what a sigma is drawn for")
    adaptive: bool = option(
        False, help="balance both terms by their gradients in the last layer: RAE does, HAE is mute"
    )


@dataclasses.dataclass(frozen=True)
class HAETraining(Autoencoding):
    """`l1 + lpips + align_weight * align`, the alignment per token. With `encoder="frozen"` the
    decoder learns alone, and nothing is aligned."""

    Options = HAEOptions
    trains_tokenizer = HAE.Options.name

    @classmethod
    def changes_latents(cls, options: Mapping[str, Any]) -> bool:
        return options.get("encoder") != "frozen"

    @classmethod
    def title(cls, config: Config) -> str:
        return "HAE"

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        super().check(config, name)
        stage, tokenizer = config.stage(name), config.tokenizer
        check(
            stage.encoder == "train" or stage.align == "none",
            f"config.{name}.encoder='frozen' has nothing to align: set config.{name}.align='none'.",
        )
        check(
            stage.align == "none" or stage.align_weight > 0,
            f"config.{name}.align_weight=0 leaves the alignment out: set align='none'.",
        )
        check(
            stage.align != "none" or stage.align_weight == 0.5,
            f"config.{name}.align='none' has no weight: leave align_weight={stage.align_weight} "
            "out.",
        )
        check(
            tokenizer.pretrained == "" or stage.align == "none",
            f"config.{name}.align needs the ViT's own patch embedding, which "
            "config.tokenizer.pretrained does not hold: set align='none'.",
        )
        earlier = config.stages[: config.stages.index(name)] if name in config.stages else ()
        methods = [config.method(stage) for stage in earlier]
        own = cls.trains_tokenizer
        teachers = [m for m in methods if m.trains_tokenizer == own and m is not cls]
        check(
            tokenizer.vit != ""
            or tokenizer.pretrained_vit + tokenizer.pretrained != ""
            or len(teachers) > 0
            or name not in config.stages,
            f"config.{name} needs a ViT: give config.tokenizer.pretrained_vit, or a stage before "
            "it that trains one.",
        )
        check(
            stage.encoder == "train" or tokenizer.pretrained != "" or cls in methods
            or name not in config.stages,
            f"config.{name}.encoder='frozen' needs a stage before it that trains the stem.",
        )  # fmt: skip

    @property
    def learns(self) -> tuple[str, ...]:
        return ("decoder",) if self.options.encoder == "frozen" else ("stem", "decoder")

    def terms(self) -> list[str]:
        s = self.options
        return [f"{s.align} alignment {s.align_weight:g}"] if s.align != "none" else []

    def fresh(self, name: str, key: OneKey, frozen: Params) -> Params:
        if name == "stem":
            return self.tokenizer.fresh_stem(key, frozen["vit"])
        return super().fresh(name, key, frozen)

    def reconstruction(
        self, frozen: Params, images: Images, output: tuple[Images, Latents]
    ) -> Loss:
        """With the alignment of the latents, which have no noise."""
        s, latents = self.options, output[1]
        total, parts = super().reconstruction(frozen, images, output)
        if s.align == "none":
            return total, parts
        teacher = self.tokenizer.as_latents(self.tokenizer.teacher(frozen, images))
        teacher = jax.lax.stop_gradient(teacher)
        if s.align == "cosine":
            parts["align"] = cosine_distance(latents, teacher, axes=(-1,))
        else:
            parts["align"] = jnp.mean((latents - teacher) ** 2)
        return total + s.align_weight * parts["align"], parts

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Reconstruction, a linear probe of student and teacher, token norms, and how the decoder
        bears other norms and directions."""
        found = super().measure(params, frozen, split, tools)
        known = {name: (frozen | params)[name] for name in self.tokenizer.parts}
        heldout = self.heldout(split)
        more = diagnose(self.tokenizer, known, split.train, heldout, tools.map_over)
        return Outcome(metrics=found.metrics | more.metrics, arrays=found.arrays | more.arrays)

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        return [*super().report(metrics, arrays), *show(arrays)]


METHOD = HAETraining
