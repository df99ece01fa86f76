"""Sphere Encoder: an autoencoder that covers the global sphere, and generates from any point of it.

arXiv 2602.15030; docs/systems/sphere_encoder.md. Symbols as there: `f` is `spherify`, E and D the
encoder and the decoder.
"""

import dataclasses
import math
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from sphere_jax.common.shapes import Images, Keys, Labels, Latents, OneKey, PerSample, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, SamplerOptions, StageOptions
from sphere_jax.data.source import Split
from sphere_jax.evaluation.page import Block
from sphere_jax.geometry import sphere
from sphere_jax.losses.cosine import cosine_distance
from sphere_jax.losses.perceptual import Perceptual, describe, perceptual_files, perceptual_loss
from sphere_jax.losses.pixel import smooth_l1
from sphere_jax.methods.base import (
    Arrays,
    Batch,
    Drawn,
    Loss,
    Outcome,
    Params,
    Passed,
    Tools,
    Trace,
)
from sphere_jax.methods.sphere_encoder_measures import measured, pictures
from sphere_jax.methods.spherical_autoencoder import SphericalAutoencoder
from sphere_jax.nn.pixels import to_float
from sphere_jax.sampling import FewSteps, decode_rounds, noise_of, stratified
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.tokenizers.sphere_encoder import SphereEncoder

HARDEST = 89.0  # degrees, the end of the boosted range


@dataclasses.dataclass(frozen=True)
class SphereEncoderOptions(StageOptions):
    """arXiv 2602.15030; docs/systems/sphere_encoder.md#noise to #optimization."""

    method: str = "sphere_encoder"
    label_dropout: float = option(
        0.1, 0.0, 1.0, help="part of labels replaced by the null label, anew at every network call"
    )
    max_angle: float = option(85.0, 0.0, 89.0, help="degrees; sigma_max is its tangent")
    strata: int = option(16, 3, help="samples over which noise radii are stratified")
    hard_mix: Literal["released", "independent"] = option(
        "released", help="how the noise beyond max_angle is drawn"
    )
    hard_fraction: float = option(0.1, 0.0, 1.0, help="of samples with noise beyond max_angle")
    encoder_rate: float = option(0.1, 0.0, help="encoder learning rate over the decoder's")
    reconstruction_weight: float = option(1.0, 0.0, help="w1, smooth L1")
    reconstruction_perceptual: float = option(1.0, 0.0, help="w2")
    consistency_weight: float = option(0.5, 0.0, help="w3, smooth L1")
    consistency_perceptual: float = option(0.5, 0.0, help="w4")
    latent_weight: float = option(0.1, 0.0, help="w5, 1 - cosine")
    lpips: str = option("", file=True, help="LPIPS-VGG weights; '' leaves the term out")
    convnext: str = option("", file=True, help="ConvNeXt-S weights; '' leaves the term out")


@dataclasses.dataclass(frozen=True)
class SphereEncoderSamplerOptions(SamplerOptions):
    """arXiv 2602.15030; docs/systems/sphere_encoder.md#sampling."""

    steps: int = option(4, 1, swept=True, help="decodes")
    schedule: Literal["fixed", "decreasing"] = option("fixed", help="of the re-noising strength")
    strength: float = option(1.0, 0.0, 1.0, swept=True, help="of the noise between steps")
    share_noise: bool = option(True, help="one noise for all re-noising steps, or a fresh one each")
    guidance_at: Literal["encoder", "decoder", "combo"] = option(
        "combo", help="networks that are guided"
    )


@dataclasses.dataclass(frozen=True)
class SphereEncoderTraining(SphericalAutoencoder):
    """Encoder and decoder from scratch, with reconstruction-type losses only."""

    tokenizer: SphereEncoder
    num_classes: int
    options: SphereEncoderOptions
    sampler: FewSteps
    perceptual: Perceptual

    system = "Sphere Encoder"
    Options = SphereEncoderOptions
    SamplerOptions = SphereEncoderSamplerOptions
    shows_path = True
    trains_tokenizer = SphereEncoder.Options.name
    noise_options = ("batch_size", "strata")
    edits: ClassVar = {  # published settings (docs/systems/sphere_encoder.md#editing)
        "reconstruct": None,
        "interpolate": {"steps": 4, "strength": 1.0},
        "crossover": {"steps": 10, "strength": 0.25},
        "manipulate": {"steps": 5, "strength": 0.25},
    }
    trains = ("encoder", "decoder")

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        stage = config.stage(name)
        check(
            stage.batch_size % stage.strata == 0,
            f"config.{name}.batch_size={stage.batch_size} must be a multiple of "
            f"strata={stage.strata}.",
        )

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "SphereEncoderTraining":
        options = config.stage(name)
        # Trained as a tokenizer for another generator, its previews take published steps.
        sampler = FewSteps(4, guidance_at="combo")
        if config.generator == name:
            sampler = cls.make_sampler(config, name, tokenizer)
        perceptual = perceptual_loss(bool(options.lpips), bool(options.convnext))
        return cls(tokenizer, config.data.num_classes, options, sampler, perceptual)

    @classmethod
    def make_sampler(cls, config: Config, name: str, tokenizer: Tokenizer) -> FewSteps:
        s = config.sampler
        return FewSteps(s.steps, s.guidance, s.schedule, s.strength, s.share_noise, s.guidance_at)

    @property
    def rates(self) -> dict[str, float]:
        return {"encoder": self.options.encoder_rate}

    def files(self) -> dict[str, Any]:
        files = perceptual_files(self.perceptual, self.options.lpips, self.options.convnext)
        return {"perceptual": files}

    def notes(self) -> list[str]:
        return [describe(self.perceptual)]

    def frozen(self, artifacts: Params) -> Params:
        return {"perceptual": artifacts.get("perceptual", {})}

    def init(self, key: OneKey, frozen: Params) -> Params:
        encoder, decoder = jax.random.split(key)
        return {
            "encoder": self.tokenizer.encoder.init(encoder),
            "decoder": self.tokenizer.decoder.init(decoder),
        }

    def keys(self, key: OneKey, size: int) -> dict[str, Any]:
        """Besides a key a sample, the two stratified noise radii r and r' (arXiv 2602.15030;
        docs/systems/sphere_encoder.md#noise)."""
        high, low, rest = jax.random.split(key, 3)
        strata = self.options.strata if size % self.options.strata == 0 else size
        return {
            "key": super().keys(rest, size),
            "r": stratified(high, size, strata),
            "r_low": stratified(low, size, strata),
        }

    def fixed_tables(self) -> dict[str, int]:
        networks = {"encoder": self.tokenizer.encoder, "decoder": self.tokenizer.decoder}
        return {name: network.module.fixed_table_size for name, network in networks.items()}

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: dict[str, Any]) -> Loss:
        """`L_pix-recon + L_pix-con + L_lat-con` (arXiv 2602.15030;
        docs/systems/sphere_encoder.md#losses)."""
        x = to_float(batch["images"])
        noise, mix, *drops = jax.vmap(lambda k: jax.random.split(k, 6))(keys["key"]).T
        # Every embedding call drops labels of its own, so the two sides of (7) and (8) may differ.
        y, y_low, y_high, y_again = (self.drop_labels(drop, batch["labels"]) for drop in drops)

        z = self.tokenizer.raw(params, x, y)
        v = sphere.spherify(z)
        e = noise_of(noise, v.shape[1:])
        r, r_low = keys["r"], keys["r_low"]
        v_low = self.renoise(v, e, 0.5 * r * r_low)
        v_high = self.renoise(v, e, self._hard(mix, r))  # the same e

        x_low = self.tokenizer.decode(params, v_low, y_low)
        x_high = self.tokenizer.decode(params, v_high, y_high)
        z_high = self.tokenizer.raw(params, x_high, y_again)

        latent = cosine_distance(z_high, jax.lax.stop_gradient(z))
        perceptual = None
        if self.perceptual.active:
            perceptual = partial(self.perceptual, frozen["perceptual"])
        parts = self.loss_parts(x, x_low, x_high, latent, _pixels, perceptual)
        return sum(parts.values()), parts

    def _hard(self, keys, r):
        """`r_high`: for a tenth of the samples, noise beyond sigma_max (arXiv 2602.15030;
        docs/systems/sphere_encoder.md#noise)."""
        s = self.options
        share, other = jax.vmap(lambda k: jax.random.uniform(k, (2,)))(keys).T
        beyond = math.tan(math.radians(min(s.max_angle + 5.0, HARDEST))) / self.sigma_max - 1.0
        boost = share if s.hard_mix == "released" else other
        return jnp.where(share < s.hard_fraction, 1.0 + boost * beyond, r)

    @property
    def sigma_max(self) -> float:
        return math.tan(math.radians(self.options.max_angle))

    def renoise(self, v: Latents, e: Latents, r: Scalar | PerSample) -> Latents:
        """`f(v + r sigma_max e)` for strengths r, () or (B,)."""
        return self.noised(v, e, r * self.sigma_max)

    def noised(self, v: Latents, e: Latents, sigma: Scalar | PerSample) -> Latents:
        """`f(v + sigma e)`: at the angle `atan sigma` from v, to within about 1 / sqrt(L).

        Where sigma is 0 it is v itself, as released: f(v) is another point where the raw latent,
        zero at the start of training, is so short that the eps of f counts.
        """
        sigma = jnp.asarray(sigma, jnp.float32)
        sigma = sigma.reshape(sigma.shape + (1,) * (v.ndim - sigma.ndim))
        return jnp.where(sigma == 0.0, v, sphere.spherify(v + sigma * e))

    def generate(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: FewSteps
    ) -> tuple[Drawn, Trace]:
        return self.refine(params, keys, labels, scale, sampler), {}

    def refine(
        self,
        params: Params,
        keys: Keys,
        labels: Labels,
        scale: Scalar,
        sampler: FewSteps,
        images: Images | None = None,
        latents: Latents | None = None,
        noise: Latents | None = None,
        states: bool = False,
    ) -> Images | tuple[Images, Passed]:
        """Float images (B, H, W, C) by the rounds of docs/systems/sphere_encoder.md#sampling: from
        noise, `latents` or `images`; with `states` also those of every round, (steps, B, ...)."""
        return decode_rounds(
            sampler,
            lambda x, y: self.tokenizer.raw(params, x, y),
            lambda v, y: self.tokenizer.decode(params, v, y),
            sphere.spherify,
            self.renoise,
            keys,
            self.tokenizer.latent_shape,
            labels,
            self.num_classes,
            scale,
            images,
            latents,
            noise,
            states,
        )

    def path(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: FewSteps
    ) -> Passed:
        """The images (steps, B, H, W, C) that are decoded one after the other."""
        return self.refine(params, keys, labels, scale, sampler, states=True)[1]

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Held-out reconstruction, coverage of the sphere, and PSNR under noise."""
        return measured(self.tokenizer, self.noised, params, split.heldout, tools.map_over)

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        """Its metrics, held-out reconstructions, and PSNR under noise."""
        return [*super().report(metrics, arrays), *pictures(arrays)]


def _pixels(images, target):
    """Smooth L1 on images mapped to [0, 1]."""
    return smooth_l1(0.5 * images, 0.5 * target)


METHOD = SphereEncoderTraining
