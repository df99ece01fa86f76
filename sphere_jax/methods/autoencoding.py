"""Shared by methods that train the decoder of features to give images back: L1, LPIPS, noise on
latents, and a discriminator that learns with it (docs/systems/hae.md#autoencoder-training)."""

import dataclasses
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sphere_jax.common.shapes import AnyArray, Images, Keys, Latents, OneKey, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, EvaluationOptions, StageOptions
from sphere_jax.data.source import Source, Split
from sphere_jax.evaluation.page import Block, Picture, Table
from sphere_jax.losses.adversarial import balanced, decoder_hinge, discriminator_hinge
from sphere_jax.losses.augmentation import augment
from sphere_jax.losses.perceptual import Perceptual, perceptual_files, perceptual_loss
from sphere_jax.losses.pixel import pixel_loss
from sphere_jax.methods.base import Arrays, Batch, Loss, Method, Outcome, Params, Pictures, Tools
from sphere_jax.methods.decoder import SHOWN, last_kernels
from sphere_jax.methods.on_latents import spaced_subset
from sphere_jax.models.dino_disc import released_dino_discriminator
from sphere_jax.models.discriminator import (
    DINO_KIND,
    Discriminator,
    dino_discriminator,
    patch_discriminator,
)
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling import noise_of
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.weights.layouts import dino as dino_weights
from sphere_jax.weights.stored import WeightsFile

ON_DINO = ("dino", "dino_released")
WITH_GROUPS = ("dino_released", "patch_batch_norm")
EPS = 1e-6  # of the adaptive weight


@dataclasses.dataclass(frozen=True)
class AutoencodingOptions(StageOptions):
    """What these methods share; docs/systems/hae.md#autoencoder-training."""

    l1_weight: float = option(1.0, 0.0, help="of the absolute error of pixels")
    lpips: str = option("", file=True, help="LPIPS-VGG weights; '' leaves the term out")
    lpips_weight: float = option(1.0, 0.0, help="of LPIPS, where weights are given")
    latent_noise: float = option(
        0.0, 0.0, help="tau: noise sigma n on latents, sigma uniform in [0, tau]; 0 is off"
    )
    latent_noise_end: float = option(0.0, 0.0, help="tau at the end of its ramp; 0: no ramp")
    latent_noise_ramp: int = option(0, 0, help="steps of the ramp, linear, from the first")
    noise_per: Literal["sample", "batch"] = option("sample", help="what a sigma is drawn for")
    adversarial_weight: float = option(0.0, 0.0, help="0: no discriminator")
    discriminator: Literal["dino_released", "dino", "patch_batch_norm", "patch"] = option(
        "dino_released", help="released, or without state and batch statistics"
    )
    dino: str = option("", file=True, help="weights of DINO ViT-S/8, for the two on it")
    norm_group: int = option(
        1, 1, help="samples that share statistics in dino_released and patch_batch_norm"
    )
    discriminator_width: int = option(64, 4, help="of the first maps of the two patch ones")
    augment: bool = option(True, help="DiffAug before the discriminator: shifts and colours")
    adaptive: bool = option(
        True, help="balance both terms by their gradients in the decoder's last layer"
    )
    discriminator_rate: float = option(1.0, 0.0, help="its learning rate over the decoder's")
    discriminator_from: int = option(0, 0, help="step from which it learns")
    adversarial_from: int = option(0, 0, help="step from which it is in the decoder's loss")
    measured: int = option(
        0, 0, moves="nothing", help="held-out images, evenly spaced, measured at the end; 0: all"
    )


@dataclasses.dataclass(frozen=True)
class Autoencoding(Method):
    """A subclass is a frozen dataclass with these fields; it says what `learns` and may add to
    `reconstruction`. `name` is its stage's.

    With a discriminator, `adversarial_weight * w * -mean D(decoded)` is in the loss from step
    `adversarial_from`, w being 1 or, with `adaptive`, the ratio of gradients over the batch or
    micro-batch: accumulation is exact for everything but that w.
    """

    name: str
    tokenizer: Tokenizer
    options: AutoencodingOptions
    perceptual: Perceptual
    discriminator: Discriminator | None
    evaluation: EvaluationOptions

    measures_fidelity = True
    noise_options = ("batch_size", "noise_per")

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        stage: AutoencodingOptions = config.stage(name)
        free, where = AutoencodingOptions(), f"config.{name}"
        adversarial = stage.adversarial_weight > 0
        names = ("dino", "discriminator_from", "adversarial_from", "discriminator_rate")
        unused = [n for n in names if vars(stage)[n] != vars(free)[n]]
        check(
            adversarial or not unused,
            f"{where}.adversarial_weight=0 has no discriminator: set it, or leave "
            f"{', '.join(unused)} out.",
        )
        check(
            not adversarial or stage.discriminator_from <= stage.adversarial_from < stage.steps,
            f"{where}: discriminator_from={stage.discriminator_from} and adversarial_from="
            f"{stage.adversarial_from} must rise and lie within its {stage.steps} steps.",
        )
        check(
            stage.dino == "" or stage.discriminator in ON_DINO,
            f"{where}.dino is for {where}.discriminator='dino_released' or 'dino'.",
        )
        check(
            stage.norm_group == 1 or stage.discriminator in WITH_GROUPS,
            f"{where}.norm_group is for {where}.discriminator='dino_released' or "
            "'patch_batch_norm'.",
        )
        check(
            stage.norm_group > 1 or stage.discriminator != "patch_batch_norm" or not adversarial,
            f"{where}.discriminator='patch_batch_norm' needs the statistics of several samples: "
            f"set {where}.norm_group to 2 or more (that of the original: the whole batch).",
        )
        check(
            stage.discriminator_width == free.discriminator_width
            or stage.discriminator not in ON_DINO,
            f"{where}.discriminator_width is for {where}.discriminator='patch' or "
            "'patch_batch_norm'.",
        )
        micro = stage.batch_size // stage.accumulate
        check(
            not adversarial or micro % stage.norm_group == 0,
            f"{where}: batch_size / accumulate = {micro} must be a multiple of norm_group="
            f"{stage.norm_group}, so that groups do not depend on micro-batches.",
        )
        ramp = (stage.latent_noise_end > 0) == (stage.latent_noise_ramp > 0)
        check(
            ramp and (stage.latent_noise > 0 or stage.latent_noise_end == 0),
            f"{where}: latent_noise_end and latent_noise_ramp go together, with latent_noise.",
        )
        check(
            stage.l1_weight > 0 or stage.lpips != "",
            f"{where} has no reconstruction loss: l1_weight or lpips must be on.",
        )
        check(
            stage.lpips == "" or stage.lpips_weight > 0,
            f"{where}.lpips_weight=0 leaves {where}.lpips out: set one of both.",
        )
        smallest = 32 if adversarial else 16 if stage.lpips else 0  # sides that networks take
        check(
            config.data.image_size >= smallest,
            f"config.data.image_size={config.data.image_size} is too small for the losses of "
            f"{where}: at least {smallest} pixels.",
        )

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "Autoencoding":
        options = config.stage(name)
        return cls(
            name=name,
            tokenizer=tokenizer,
            options=options,
            perceptual=perceptual_loss(bool(options.lpips), False),
            discriminator=_discriminator(options, config.data.channels),
            evaluation=config.evaluation,
        )

    @property
    def learns(self) -> tuple[str, ...]:
        """The parts of the tokenizer that it trains."""
        return ("decoder",)

    @property
    def trains(self) -> tuple[str, ...]:
        return self.learns if self.discriminator is None else (*self.learns, "discriminator")

    @property
    def rates(self) -> dict[str, float]:
        rate = self.options.discriminator_rate
        return {} if self.discriminator is None else {"discriminator": rate}

    @property
    def starts(self) -> dict[str, int]:
        start = self.options.discriminator_from
        return {} if self.discriminator is None else {"discriminator": start}

    @property
    def clipped_apart(self) -> tuple[str, ...]:
        return () if self.discriminator is None else ("discriminator",)

    def files(self) -> dict[str, Any]:
        s, found = self.options, {}
        if self.perceptual.active:
            found["perceptual"] = perceptual_files(self.perceptual, s.lpips, "")
        if self.discriminator is not None and self.discriminator.backbone is not None:
            network, option = self.discriminator.backbone, f"config.{self.name}.dino"
            layouts = dino_weights.layouts
            found["dino"] = WeightsFile(s.dino, DINO_KIND, network, layouts, option)
        return found

    def notes(self) -> list[str]:
        s = self.options
        terms = [f"L1 {s.l1_weight:g}"] if s.l1_weight else []
        if self.perceptual.active:
            terms.append(f"LPIPS-VGG {s.lpips_weight:g}")
        if self.discriminator is not None:
            weight = f"{s.adversarial_weight:g}{' x adaptive' if s.adaptive else ''}"
            terms.append(
                f"'{s.discriminator}' discriminator {weight} from step {s.adversarial_from:,}"
            )
        notes = [f"Trains {', '.join(self.trains)}. Loss: {', '.join(terms + self.terms())}."]
        if not self.perceptual.active:
            notes.append("No LPIPS in it: the stage's option lpips is empty.")
        if not self.evaluation.pretrained:
            notes.append("No Fréchet distance at the end: config.evaluation.pretrained is empty.")
        return notes

    def terms(self) -> list[str]:
        """What a subclass adds to the loss, in words."""
        return []

    def frozen(self, artifacts: Params) -> Params:
        names = (*self.tokenizer.parts, "discriminator", "perceptual", "dino")
        return {name: artifacts[name] for name in names if name in artifacts}

    def init(self, key: OneKey, frozen: Params) -> Params:
        """What earlier stages trained, and fresh parameters of the rest."""
        params = {}
        for name in self.trains:
            key, own = jax.random.split(key)
            params[name] = (
                jax.tree.map(jnp.copy, frozen[name])
                if name in frozen and self._fits(name, frozen[name])
                else self.fresh(name, own, frozen)
            )
        return params

    def _fits(self, name, tree) -> bool:
        """Another stage may have had another discriminator."""
        if name != "discriminator":
            return True
        shapes = self.discriminator.network.shapes
        same = jax.tree.structure(shapes) == jax.tree.structure(tree)
        return same and jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, shapes, tree))

    def fresh(self, name: str, key: OneKey, frozen: Params) -> Params:
        """New parameters of one part."""
        if name == "discriminator":
            return self.discriminator.network.init(key)
        return self.tokenizer.decoder.init(key)

    def made_by_frozen(self, frozen: Params, batch: Batch) -> Latents | None:
        if set(self.tokenizer.encoder_parts) & set(self.learns):
            return None
        return self.tokenizer.encode(frozen, to_float(batch["images"]))

    def advance(self, params: Params) -> Params:
        if self.discriminator is None:
            return params
        return params | {"discriminator": self.discriminator.advance(params["discriminator"])}

    def keys(self, key: OneKey, size: int) -> dict[str, Any]:
        """A key a sample, and what sigma of its noise is over tau, uniform in [0, 1]."""
        rest, strength = jax.random.split(key)
        if self.options.noise_per == "batch":
            drawn = jnp.broadcast_to(jax.random.uniform(strength), (size,))
        else:
            drawn = jax.vmap(jax.random.uniform)(super().keys(strength, size))
        return {"key": super().keys(rest, size), "strength": drawn}

    def schedule(self, step: Int[AnyArray, ""]) -> dict[str, Scalar]:
        """tau of the noise; whether the discriminator learns and whether it is in the loss."""
        s, found = self.options, {}
        if s.latent_noise:
            done = jnp.clip(step / max(s.latent_noise_ramp, 1), 0.0, 1.0)
            end = s.latent_noise_end or s.latent_noise
            found["tau"] = (s.latent_noise + (end - s.latent_noise) * done).astype(jnp.float32)
        if self.discriminator is not None:
            found["discriminator"] = (step >= s.discriminator_from).astype(jnp.float32)
            found["adversarial"] = (step >= s.adversarial_from).astype(jnp.float32)
        return found

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: dict[str, Any]) -> Loss:
        """With a schedule among the frozen, in training; without (held-out images), of the
        reconstruction of latents without noise.
        """
        images, schedule = to_float(batch["images"]), frozen.get("schedule", {})
        learned = {name: params[name] for name in self.learns}
        noise_keys, *views = jax.vmap(lambda k: jax.random.split(k, 4))(keys["key"]).T
        reconstruction = partial(self.reconstruction, frozen, images)

        def network(learned):
            known = frozen | learned
            latents = self.tokenizer.encode(known, images)
            noised = latents
            if "tau" in schedule:
                sigma = (schedule["tau"] * keys["strength"]).reshape(-1, 1, 1, 1)
                noised = latents + sigma * noise_of(noise_keys, latents.shape[1:])
            return self.tokenizer.decode(known, noised), latents

        if "adversarial" not in schedule:
            return reconstruction(network(learned))

        fixed = jax.lax.stop_gradient(params["discriminator"])
        scale = self.options.adversarial_weight * schedule["adversarial"]

        def adversarial(output):
            return decoder_hinge(self._logits(fixed, frozen, output[0], views[0]))

        if self.options.adaptive:
            last = lambda gradient: last_kernels(self.tokenizer, gradient["decoder"])  # noqa: E731
            found = balanced(network, learned, reconstruction, adversarial, last, scale, EPS)
            loss, decoded, parts = found.loss, found.output[0], found.parts
            parts |= {"adversarial": found.adversarial, "adaptive_weight": found.weight}
        else:
            output = network(learned)
            loss, parts = reconstruction(output)
            parts["adversarial"] = adversarial(output)
            loss += scale * parts["adversarial"]
            decoded = jax.lax.stop_gradient(output[0])

        if self.discriminator.backbone is not None:  # docs/systems/hae.md#dino-disc: 8 bits
            decoded = to_float(to_uint8(decoded))
        real, fake = (
            self._logits(params["discriminator"], frozen, shown, view)
            for shown, view in ((images, views[1]), (decoded, views[2]))
        )
        parts["discriminator"] = discriminator_hinge(real, fake)
        parts |= {"logit_real": jnp.mean(real), "logit_decoded": jnp.mean(fake)}
        return loss + schedule["discriminator"] * parts["discriminator"], parts

    def reconstruction(
        self, frozen: Params, images: Images, output: tuple[Images, Latents]
    ) -> Loss:
        """Of what the decoder made and the latents without noise, against the images."""
        s, decoded = self.options, output[0]
        total = pixel_loss(decoded, images, s.l1_weight, 0.0)
        parts = {"pixel": total}
        if self.perceptual.active:
            parts["lpips"] = self.perceptual(frozen["perceptual"], decoded, images)
            total += s.lpips_weight * parts["lpips"]
        return total, parts

    def _logits(self, params, frozen, images, keys: Keys):
        images = augment(images, keys) if self.options.augment else images
        return self.discriminator.logits(params, frozen.get("dino"), images)

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """Originals above their reconstructions."""
        decoded = self._reconstruct(frozen | params, batch["images"])
        return jnp.concatenate([batch["images"], decoded])

    def _reconstruct(self, params, images):
        latents = self.tokenizer.encode(params, to_float(images))
        return to_uint8(self.tokenizer.decode(params, latents))

    def heldout(self, split: Split) -> Source:
        """What it is measured on."""
        count = self.options.measured or len(split.heldout)
        return spaced_subset(split.heldout, count)

    def measured_with(self) -> dict[str, Any]:
        return {"images": self.options.measured}

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Reconstruction of held-out images."""
        images = self.heldout(split).arrays["images"]
        known = {name: (frozen | params)[name] for name in self.tokenizer.parts}

        def reconstruct(p, x):
            return self._reconstruct(p, x)

        decoded = tools.map_over(reconstruct, known, images)
        scores = tools.fidelity.scores(images, decoded, tools.fidelity.moments(images))
        some = np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)
        shown = {"original": images[some], "reconstruction": decoded[some]}
        return Outcome(
            metrics={f"reconstruction_{name}": value for name, value in scores.items()},
            arrays={f"strip_{name}": pictures for name, pictures in shown.items()},
        )

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        """Its metrics and held-out reconstructions."""
        from sphere_jax.evaluation import figures

        rows = [[name.replace("_", " "), value] for name, value in metrics.items()]
        strips = {
            name.removeprefix("strip_").replace("_", " "): pictures
            for name, pictures in arrays.items()
            if name.startswith("strip_")
        }
        return [
            Table(["held-out images", ""], rows),
            Picture(figures.labelled_rows(strips), "Held-out images and what is decoded."),
        ]


@cache
def _discriminator(options: AutoencodingOptions, channels: int) -> Discriminator | None:
    if options.adversarial_weight == 0:
        return None
    patches = partial(patch_discriminator, channels, options.discriminator_width)
    return {
        "dino_released": partial(released_dino_discriminator, options.norm_group),
        "dino": dino_discriminator,
        "patch_batch_norm": partial(patches, group=options.norm_group),
        "patch": patches,
    }[options.discriminator]()
