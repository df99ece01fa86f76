"""flow-sphere: a spherical autoencoder whose decode is refined by a few flow steps on pixels.

docs/systems/flow_sphere.md, from the public code of `feitreim/flow-sphere`. `f` is `spherify`, E
and D the encoder and the decoder, G the refiner. Time is 0 at the image and 1 at the start of the
flow, `rho n + (1 - rho) D(v)`: the original's is one minus it.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import AnyArray, Keys, OneKey, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, SamplerOptions, StageOptions
from sphere_jax.data.source import Split
from sphere_jax.evaluation.page import Block
from sphere_jax.geometry import sphere
from sphere_jax.losses.cosine import cosine_distance
from sphere_jax.losses.pixel import smooth_l1
from sphere_jax.losses.vgg import VGGFeatures
from sphere_jax.methods.base import Arrays, Batch, Loss, Outcome, Params, Tools
from sphere_jax.methods.flow_sphere_measures import measured, norm_statistics, pictures
from sphere_jax.methods.flow_sphere_sampling import FlowSphereSampling
from sphere_jax.models.flow_sphere import Refiner
from sphere_jax.nn.functional import Network
from sphere_jax.nn.pixels import to_float
from sphere_jax.sampling import Refinement, mix, noise_of
from sphere_jax.sampling.refinement import CLAMP
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.tokenizers.flow_sphere import FlowSphere


@dataclasses.dataclass(frozen=True)
class FlowSphereOptions(StageOptions):
    """docs/systems/flow_sphere.md#losses; defaults are those of E where the original differs."""

    method: str = "flow_sphere"
    warmup: int = option(500, 0, help="steps of the autoencoder alone, before the refiner joins")
    max_angle: float = option(80.0, 0.0, 89.0, help="degrees; the noise angle is uniform below it")
    hard_angle: float = option(85.0, 0.0, 89.0, help="degrees; some angles lie between both")
    hard_fraction: float = option(0.1, 0.0, 1.0, help="of samples with an angle beyond max_angle")
    noise_on: Literal["sphere", "latent"] = option(
        "sphere", help="f(f(z) + s e), or f(z + s e), whose angle depends on the scale of z"
    )
    reconstruction_weight: float = option(1.0, 0.0, help="w1, smooth L1")
    reconstruction_perceptual: float = option(1.0, 0.0, help="w2, VGG features")
    consistency_weight: float = option(1.0, 0.0, help="w3, smooth L1")
    consistency_perceptual: float = option(1.0, 0.0, help="w4, VGG features")
    latent_weight: float = option(0.1, 0.0, help="w5, 1 - cosine")
    flow_weight: float = option(1.0, 0.0, help="of the refiner's squared velocity error")
    rho: float = option(0.75, 0.0, 1.0, help="part of noise in the start of the flow")
    encoder_gradients: bool = option(True, help="the flow's gradient reaches the encoder")
    context: bool = option(True, help="the refiner reads latents and decoder tokens")
    time: Literal["table", "continuous"] = option(
        "continuous", help="time of the refiner: a table of 100 rows, or sinusoids"
    )
    width: int = option(128, 8, help="of the refiner")
    depth: int = option(4, 1, help="blocks of the refiner")
    head_dim: int = option(32, 2, help="channels of a head of the refiner")
    hidden: int = option(256, 1, help="width of its feed-forward layers")
    label_dropout: float = option(
        0.1, 0.0, 1.0, help="part of labels replaced by the null label, where there are classes"
    )
    lpips: str = option(
        "", file=True, help="LPIPS-VGG weights, for VGG-16's features; '' leaves the term out"
    )


@dataclasses.dataclass(frozen=True)
class FlowSphereSamplerOptions(SamplerOptions):
    """docs/systems/flow_sphere.md#sampling."""

    steps: int = option(
        10, 0, swept=True, help="N: N - 1 Heun steps and a last prediction; 0: the decode alone"
    )
    rho: float = option(
        -1.0, -1.0, 1.0, swept=True, help="part of noise in the start; -1: as in training"
    )
    strength: float = option(
        0.25, 0.0, 1.0, help="of the noise on an edited image's latent, over that of max_angle"
    )


@dataclasses.dataclass(frozen=True)
class FlowSphereTraining(FlowSphereSampling):
    """Encoder, decoder and refiner, from scratch."""

    tokenizer: FlowSphere
    refiner: Network
    num_classes: int
    options: FlowSphereOptions
    sampler: Refinement
    features: VGGFeatures | None

    system = "flow-sphere"
    Options = FlowSphereOptions
    SamplerOptions = FlowSphereSamplerOptions
    trains_tokenizer = FlowSphere.Options.name
    noise_options = ("batch_size",)
    network_options = ("context", "time", "width", "depth", "head_dim", "hidden")
    trains = ("encoder", "decoder", "refiner")
    network_parameters = ""

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        stage = config.stage(name)
        check(
            stage.max_angle <= stage.hard_angle,
            f"config.{name}.hard_angle={stage.hard_angle} must be at least "
            f"max_angle={stage.max_angle}.",
        )
        check(
            stage.warmup < stage.steps or stage.steps == 0,
            f"config.{name}.warmup={stage.warmup} leaves none of its {stage.steps} steps to the "
            "refiner: give a lower warmup.",
        )
        check(
            stage.context or stage.encoder_gradients,
            f"config.{name}.encoder_gradients=False changes nothing with context=False, where the "
            "refiner sees no latents: set one of them to True.",
        )
        check(
            (stage.accumulate == 1 and stage.most_per_device == 0)
            or not config.tokenizer.normalize,
            f"config.{name}.accumulate={stage.accumulate} and most_per_device="
            f"{stage.most_per_device} would change the statistics of the batch norm, which are "
            "those of a micro-batch: set config.tokenizer.normalize=False.",
        )

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "FlowSphereTraining":
        o, sizes = config.stage(name), tokenizer.options
        context = (sizes.latent_channels, sizes.width) if o.context else None

        def refiner(rngs):
            return Refiner(
                tokenizer.image_shape, context, sizes.patch, o.width, o.depth, sizes.heads,
                o.head_dim, o.hidden, tokenizer.num_classes, rope=sizes.rope, time=o.time,
                compute_dtype=jnp.dtype(sizes.compute_dtype), unroll=sizes.unroll,
                remat=sizes.remat, rngs=rngs,
            )  # fmt: skip

        # Trained as a tokenizer for another generator, its previews take published steps.
        sampler = Refinement(10, rho=o.rho)
        if config.generator == name:
            sampler = cls.make_sampler(config, name, tokenizer)
        features = VGGFeatures() if o.lpips else None
        try:
            network = Network(refiner)
        except ValueError as error:
            raise UserError(f"config.{name}: {error}.") from error
        return cls(tokenizer, network, config.data.num_classes, o, sampler, features)

    @classmethod
    def make_sampler(cls, config: Config, name: str, tokenizer: Tokenizer) -> Refinement:
        s = config.sampler
        rho = config.stage(name).rho if s.rho < 0.0 else s.rho
        return Refinement(s.steps, s.guidance, rho, s.strength)

    @property
    def joins(self) -> dict[str, int]:
        return {"refiner": self.options.warmup}

    def files(self) -> dict[str, Any]:
        return {} if self.features is None else {"vgg": self.features.file(self.options.lpips)}

    def notes(self) -> list[str]:
        if self.features is not None:
            return ["Perceptual loss: VGG-16 up to relu3_3 on."]
        return [
            "Perceptual loss: off, without VGG-16 (give LPIPS-VGG weights, which hold it, as "
            "option 'lpips')."
        ]

    def frozen(self, artifacts: Params) -> Params:
        return {"vgg": artifacts.get("vgg", {})}

    def init(self, key: OneKey, frozen: Params) -> Params:
        encoder, decoder, refiner = jax.random.split(key, 3)
        return {
            "encoder": self.tokenizer.encoder.init(encoder),
            "decoder": self.tokenizer.decoder.init(decoder),
            "refiner": self.refiner.init(refiner),
        }

    def schedule(self, step: Int[AnyArray, ""]) -> dict[str, Scalar]:
        """1 from the step on with which the refiner joins, 0 before."""
        return {"refines": (step >= self.options.warmup).astype(jnp.float32)}

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: Keys) -> Loss:
        """`L_rec + L_con + L_lat + L_flow` (docs/systems/flow_sphere.md#losses)."""
        s, x = self.options, to_float(batch["images"])
        noise, angles, drop, flow = jax.vmap(lambda k: jax.random.split(k, 4))(keys).T
        labels = self.drop_labels(drop, batch["labels"]) if self.conditional else None

        z = self.tokenizer.raw(params, x, labels)
        v, e = sphere.spherify(z), noise_of(noise, z.shape[1:])
        high, low = self._sigmas(angles)
        base = v if s.noise_on == "sphere" else z
        v_low, v_high = self.noised(base, e, low), self.noised(base, e, high)  # the same e

        x_low, tokens = self.tokenizer.decode_with_tokens(params, v_low, labels)
        x_high = self.tokenizer.decode(params, v_high, labels)
        target = jax.lax.stop_gradient(x_low)
        z_high = self.tokenizer.raw(params, jax.lax.stop_gradient(x_high), labels)

        latent = cosine_distance(z_high, v)
        perceptual = None
        if self.features is not None:
            perceptual = partial(self.features.distance, frozen["vgg"])
        parts = self.loss_parts(x, x_low, x_high, latent, smooth_l1, perceptual)
        given = (v_low if s.encoder_gradients else jax.lax.stop_gradient(v_low), tokens)
        parts["flow"] = s.flow_weight * jax.lax.cond(
            frozen.get("schedule", {"refines": 1.0})["refines"] > 0.0,
            lambda: self._flow_loss(params, flow, x, target, *given, labels),
            lambda: jnp.float32(0.0),
        )
        return sum(parts.values()), parts

    def _flow_loss(self, params, keys, x, rough, latents, tokens, labels):
        """`mean |(x - x_hat) / max(t, 0.05)|^2`, the squared error of the velocity."""
        noise, time = jax.vmap(lambda k: jax.random.split(k))(keys).T
        t = jax.vmap(jax.random.uniform)(time)
        start = mix(rough, noise_of(noise, x.shape[1:]), self.options.rho)
        column = t.reshape(-1, 1, 1, 1)
        x_t = (1.0 - column) * x + column * start
        tokens = jax.lax.stop_gradient(tokens)
        x_hat = self.predict(params, x_t, t, latents, tokens, labels)
        return jnp.mean(((x - x_hat) / jnp.maximum(column, CLAMP)) ** 2)

    def _sigmas(self, keys):
        """Noise of both levels (B,): the tangent of an angle, and up to half of it."""
        s = self.options
        which, where, part = jax.vmap(lambda k: jax.random.uniform(k, (3,)))(keys).T
        hard = s.max_angle + where * (s.hard_angle - s.max_angle)
        angle = jnp.where(which < s.hard_fraction, hard, where * s.max_angle)
        high = jnp.tan(jnp.radians(angle))
        return high, 0.5 * part * high

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Statistics of the batch norm, held-out reconstruction, coverage of the sphere, and some
        decodes with their refinements."""
        statistics = norm_statistics(self.tokenizer, params, split.train, tools.map_over)
        known = params | {"statistics": statistics}
        found = measured(self, known, split.heldout, tools.map_over)
        return dataclasses.replace(found, artifacts={"statistics": statistics})

    def artifact_shapes(self) -> dict[str, Any]:
        numbers = jax.ShapeDtypeStruct(self.tokenizer.latent_shape, np.float32)
        return {"statistics": {"mean": numbers, "variance": numbers}}

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        """Its metrics, decodes above their refinements, and held-out reconstructions."""
        return [*super().report(metrics, arrays), *pictures(arrays)]


METHOD = FlowSphereTraining
