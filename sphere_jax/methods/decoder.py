"""Adapting a decoder to latents on a sphere, the encoder frozen (arXiv 2605.15193;
docs/systems/spherical_flow.md#decoder-adaptation)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Keys, OneKey
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, EvaluationOptions, StageOptions
from sphere_jax.data.memory import check_fits
from sphere_jax.data.source import Split
from sphere_jax.evaluation.page import Block, Picture, Table
from sphere_jax.geometry.spaces import Space
from sphere_jax.losses.perceptual import Perceptual
from sphere_jax.methods.base import (
    Arrays,
    Batch,
    Loss,
    MapOver,
    Outcome,
    Params,
    Pictures,
    Tools,
    space_of,
)
from sphere_jax.methods.decoder_training import (
    SHOWN,
    DecoderTraining,
    check_losses,
    make_discriminator,
)
from sphere_jax.methods.on_latents import latent_bytes, spaced_subset
from sphere_jax.models.discriminator import Discriminator
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling import noise_of
from sphere_jax.tokenizers.base import Tokenizer

CELLS = ("raw_original", "projected_original", "projected_finetuned", "raw_finetuned")


@dataclasses.dataclass(frozen=True)
class DecoderOptions(StageOptions):
    """arXiv 2605.15193; docs/systems/spherical_flow.md#decoder-adaptation."""

    method: str = "decoder"
    target: Literal["images", "original"] = option(
        "images", help="original: what the original decoder makes of raw latents"
    )
    l1_weight: float = option(1.0, 0.0, help="of the absolute error of pixels")
    l2_weight: float = option(1.0, 0.0, help="of the squared error of pixels")
    lpips: str = option("", file=True, help="LPIPS-VGG weights; '' leaves the term out")
    lpips_weight: float = option(1.0, 0.0, help="of LPIPS, where `lpips` is given")
    latent_noise: float = option(
        0.0, 0.0, help="largest noise on projected latents, which are projected again"
    )
    adversarial_weight: float = option(
        0.0, 0.0, help="0: no discriminator; published for others: 0.5"
    )
    discriminator: Literal["patch", "dino"] = option("patch", help="a PatchGAN, or heads on DINO")
    dino: str = option("", file=True, help="weights of DINO ViT-S/8, for discriminator='dino'")
    discriminator_rate: float = option(1.0, 0.0, help="its learning rate over the decoder's")
    adversarial_from: int = option(0, 0, help="step from which it is in the decoder's loss")
    measured: int = option(
        0, 0, moves="nothing", help="held-out images, evenly spaced, measured at the end; 0: all"
    )


@dataclasses.dataclass(frozen=True)
class DecoderFinetuning(DecoderTraining):
    """Reconstruction from projected latents: L1, L2, LPIPS and a discriminator trained with it.

    Latents are normalised per channel by the tokenizer, then projected; the decoder gets what is
    projected through the inverse of the normalisation (arXiv 2605.15193;
    docs/systems/spherical_flow.md#pitfalls). In a Euclidean space the projection is the identity,
    and this is the paper's control, "FT-vanilla".

    With `target="original"` the target is not the image, but what the original decoder makes of its
    raw latents. Ours (no paper has it): without a projection there is then nothing to learn, so
    finetuning by itself costs nothing.

    A discriminator learns from the first step, and is in the decoder's loss from step
    `adversarial_from`.
    """

    tokenizer: Tokenizer
    space: Space
    options: DecoderOptions
    perceptual: Perceptual = Perceptual(None, None)
    discriminator: Discriminator | None = None
    evaluation: EvaluationOptions = EvaluationOptions()
    name: str = DecoderOptions.method

    Options = DecoderOptions
    reads = ("projection",)  # a decoder sees what is projected and how, not the path

    @classmethod
    def changes_latents(cls, options: Mapping[str, Any]) -> bool:
        return False

    @classmethod
    def title(cls, config: Config) -> str:
        return "decoder finetuning"

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        stage = config.stage(name)
        adversarial = stage.adversarial_weight > 0
        unused = (stage.discriminator, stage.dino, stage.discriminator_rate, stage.adversarial_from)
        check(
            adversarial or unused == ("patch", "", 1.0, 0),
            f"config.{name}.adversarial_weight=0 has no discriminator: set it to 0.5, say, or "
            "leave discriminator, dino, discriminator_rate and adversarial_from as they are.",
        )
        check(
            not adversarial or stage.adversarial_from < stage.steps,
            f"config.{name}.adversarial_from={stage.adversarial_from} is past the last of "
            f"{stage.steps} steps: the discriminator would have no effect.",
        )
        check(
            stage.l1_weight + stage.l2_weight > 0 or stage.lpips != "",
            f"config.{name} has no reconstruction loss: l1_weight, l2_weight or lpips must be on.",
        )
        check(
            stage.measured != 1,
            f"config.{name}.measured=1 has no spread; give 2 or more held-out images, or 0 for "
            "all.",
        )
        check(
            not adversarial or (stage.discriminator == "dino") == (stage.dino != ""),
            f"config.{name}.discriminator='dino' and config.{name}.dino, the weights of DINO "
            "ViT-S/8, go together.",
        )
        check_losses(config, name, cls.adaptive)

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "DecoderFinetuning":
        space = space_of(config, tokenizer.latent_shape)
        return super().build(config, name, tokenizer, space=space)

    @classmethod
    def opponent(cls, options: DecoderOptions, channels: int) -> Discriminator:
        return make_discriminator(options.discriminator, channels)

    def training_data(self, split: Split, frozen: Params, map_over: MapOver) -> Split:
        """Checks the number of held-out images before training."""
        count = min(self.options.measured or len(split.heldout), len(split.heldout))
        if count < 2:
            raise UserError("One held-out image has no spread to measure; hold out 2 or more.")
        check_fits(
            f"Latents and reconstructions of {count:,} held-out images",
            count * (latent_bytes(self.tokenizer) + math.prod(self.tokenizer.image_shape)),
            f"measure fewer: config.{self.name}.measured=5000, say",
        )
        return split

    def notes(self) -> list[str]:
        s = self.options
        weights = {"L1": s.l1_weight, "L2": s.l2_weight}
        if self.perceptual.active:
            weights["LPIPS-VGG"] = s.lpips_weight
        terms = [f"{name} {weight:g}" for name, weight in weights.items() if weight]
        if self.discriminator is not None:
            kind, weight, first = s.discriminator, s.adversarial_weight, s.adversarial_from
            terms.append(f"'{kind}' discriminator {weight:g} from step {first:,}")
        target = {"images": "images", "original": "what the original decoder makes of raw latents"}
        return [f"Loss: {', '.join(terms)}; target: {target[s.target]}.", *self.left_out()]

    def init(self, key: OneKey, frozen: Params) -> Params:
        params = {"decoder": jax.tree.map(jnp.copy, frozen["decoder"])}
        if self.discriminator is not None:
            params["discriminator"] = self.discriminator.network.init(key)
        return params

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: Keys) -> Loss:
        """With a schedule among the frozen, of decoder and discriminator; without (held-out
        images), of the reconstruction alone.
        """
        images = to_float(batch["images"])
        encoded = self.tokenizer.encode(frozen, images)
        latents = self._latents(encoded, keys)
        target = images
        if self.options.target == "original":
            target = jax.lax.stop_gradient(self.tokenizer.decode(frozen, encoded))

        def network(learned):
            return (self.tokenizer.decode(frozen | learned, latents),)

        def reconstruction(output):
            return self.image_loss(frozen, output[0], target, self.options.l2_weight)

        if self.discriminator is None or "schedule" not in frozen:
            return reconstruction(network({"decoder": params["decoder"]}))
        real = self.as_seen(target)
        return self.adversarial_loss(params, frozen, network, reconstruction, real)

    def _latents(self, encoded, keys):
        """Projected; with `latent_noise`, moved by noise and projected again."""
        latents = self.space.project(encoded)
        if self.options.latent_noise == 0:
            return latents
        keys = jax.vmap(lambda key: jax.random.split(key))(keys)
        sigma = self.options.latent_noise * jax.vmap(jax.random.uniform)(keys[:, 0])
        noise = noise_of(keys[:, 1], latents.shape[1:])
        return self.space.project(latents + sigma.reshape(-1, 1, 1, 1) * noise)

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """Originals above their reconstructions from projected latents."""
        latents = self.space.project(self.tokenizer.encode(frozen, to_float(batch["images"])))
        decoded = to_uint8(self.tokenizer.decode(frozen | params, latents))
        return jnp.concatenate([batch["images"], decoded])

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Held-out reconstructions from raw and projected latents by both decoders."""
        count, heldout = self.options.measured, split.heldout
        images = (spaced_subset(heldout, count) if count else heldout).arrays["images"]
        map_over, fidelity = tools.map_over, tools.fidelity
        moments = fidelity.moments(images)
        some = np.linspace(0, len(images) - 1, SHOWN).astype(int)
        metrics, shown = {}, {"original": np.asarray(images[some])}

        def encode(p, x):
            return self.tokenizer.encode(p, to_float(x))

        def decode_raw(p, z):
            return to_uint8(self.tokenizer.decode(p, z))

        def decode_projected(p, z):
            return decode_raw(p, self.space.project(z))

        original = {name: frozen[name] for name in self.tokenizer.parts}
        encoded = map_over(encode, original, images)
        finetuned = original | {"decoder": params["decoder"]}
        for cell in CELLS:
            decode = decode_raw if cell.startswith("raw") else decode_projected
            pictures = map_over(decode, original if "original" in cell else finetuned, encoded)
            shown[cell] = pictures[some]
            for name, value in fidelity.scores(images, pictures, moments).items():
                metrics[f"{name}_{cell}"] = value
        return Outcome(metrics=metrics, arrays=shown)

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        """A row for each of the four cells, and their reconstructions."""
        from sphere_jax.evaluation import figures

        names = [key.removesuffix(f"_{CELLS[0]}") for key in metrics if key.endswith(CELLS[0])]
        rows = [
            [cell.replace("_", " "), *(metrics[f"{name}_{cell}"] for name in names)]
            for cell in CELLS
        ]
        table = Table(["latents, decoder", *(name.replace("_", " ") for name in names)], rows)
        strips = {name.replace("_", " "): images for name, images in arrays.items()}
        return [
            table,
            Picture(figures.labelled_rows(strips), "Held-out images and reconstructions."),
        ]


METHOD = DecoderFinetuning
