"""Sphere Latent Encoder: few-step denoising on the global sphere of a tokenizer's latents.

arXiv 2605.15592; docs/systems/sphere_latent.md. The denoiser g takes no noise level; it predicts
the clean latent. `f` is `spherify`.
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from sphere_jax.common.shapes import Keys, Labels, Latents, PerSample, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, SamplerOptions
from sphere_jax.data.source import Split
from sphere_jax.evaluation.coverage import coverage
from sphere_jax.geometry.spaces import Space
from sphere_jax.losses.cosine import cosine_distance
from sphere_jax.methods.base import Batch, Drawn, Loss, Outcome, Params, Passed, Tools, Trace
from sphere_jax.methods.on_latents import OnLatents, OnLatentsOptions, encoded, spaced_subset
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import FewSteps, denoise_rounds, noise_of
from sphere_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class SphereLatentOptions(OnLatentsOptions):
    """arXiv 2605.15592, sections 4.2 and 4.3; docs/systems/sphere_latent.md#objective; what the
    paper leaves open is `inferred` in the configs."""

    method: str = "sphere_latent"
    level_mean: float = option(0.0, help="of the logit of the two noise levels")
    level_std: float = option(1.0, 1e-6, help="of that logit")
    noise_map: Literal["tangent", "interpolation"] = option("tangent", help="level to noise")
    max_angle: float = option(85.0, 0.0, 89.0, help="degrees, of the tangent map and of sampling")
    distance: Literal["l1", "l2"] = option("l1", help="norm of a difference")
    cosine: Literal["latent", "token"] = option(
        "latent", help="over the flattened latent, or token by token"
    )
    target: Literal["projected", "latent"] = option(
        "projected", help="clean latent, on the sphere or off it"
    )
    inputs: Literal["low", "clean_and_low"] = option(
        "low", help="noise levels of the reconstruction loss"
    )
    distance_weight: float = option(1.0, 0.0, help="of the distance in both losses")
    cosine_weight: float = option(1.0, 0.0, help="of 1 - cosine in both losses")
    reconstruction_weight: float = option(1.0, 0.0, help="of the reconstruction loss")
    consistency_weight: float = option(1.0, 0.0, help="of the consistency loss")


@dataclasses.dataclass(frozen=True)
class SphereLatentSamplerOptions(SamplerOptions):
    """arXiv 2605.15592, Algorithm 1; docs/systems/sphere_latent.md#sampling."""

    steps: int = option(4, 1, swept=True, help="denoisings")
    schedule: Literal["decreasing", "fixed"] = option(
        "decreasing", help="of the re-noising strength"
    )
    strength: float = option(1.0, 0.0, 1.0, swept=True, help="of the noise between steps")
    share_noise: bool = option(True, help="one noise for all re-noising steps, or a fresh one each")


@dataclasses.dataclass(frozen=True)
class SphereLatent(OnLatents):
    """A class-conditional denoiser trained by reconstruction and consistency."""

    tokenizer: Tokenizer
    space: Space
    network: Network
    num_classes: int
    options: SphereLatentOptions
    sampler: FewSteps

    Options = SphereLatentOptions
    SamplerOptions = SphereLatentSamplerOptions
    shows_path = True
    takes_time = False

    @classmethod
    def title(cls, config: Config) -> str:
        return "Sphere Latent Encoder"

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        super().check(config, name)
        space = config.space
        check(
            space.projects and space.path != "data_projected" and space.sphere == "global",
            f"config.{name} lives on the global sphere: config.space.sphere='global' and a path "
            "with noise on it, say 'slerp'.",
        )

    @classmethod
    def make_sampler(cls, config: Config, name: str, tokenizer: Tokenizer) -> FewSteps:
        s = config.sampler
        return FewSteps(s.steps, s.guidance, s.schedule, s.strength, s.share_noise)

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: Keys) -> Loss:
        """`L_rec + L_con` (arXiv 2605.15592, sections 4.2 and 4.3;
        docs/systems/sphere_latent.md#objective)."""
        s = self.options
        noise, level, drop = jax.vmap(lambda k: jax.random.split(k, 3))(keys).T
        clean = self.latents_of(frozen, batch, keys)
        v = self.space.project(clean)
        e = noise_of(noise, v.shape[1:])
        n = noise_of(level, (2,))
        r = jax.nn.sigmoid(s.level_mean + s.level_std * n)
        labels = self.drop_labels(drop, batch["labels"])

        def denoise(v):
            return self.network.apply(params["network"], v, labels=labels)

        low = denoise(self.renoise(v, e, r.min(1)))  # the same e
        high = denoise(self.renoise(v, e, r.max(1)))
        target = v if s.target == "projected" else clean
        reconstruction = self._difference(low, target)
        if s.inputs == "clean_and_low":
            reconstruction = 0.5 * (reconstruction + self._difference(denoise(v), target))
        consistency = self._difference(high, jax.lax.stop_gradient(low))
        loss = s.reconstruction_weight * reconstruction + s.consistency_weight * consistency
        return loss, {"reconstruction": reconstruction, "consistency": consistency}

    def _difference(self, a, b):
        """Norm plus `1 - cos`."""
        s, error = self.options, a - b
        norm = jnp.mean(jnp.abs(error)) if s.distance == "l1" else jnp.mean(error**2)
        axes = None if s.cosine == "latent" else (3,)
        return s.distance_weight * norm + s.cosine_weight * cosine_distance(a, b, axes)

    def renoise(self, v: Latents, e: Latents, r: Scalar | PerSample) -> Latents:
        """v noised to the level r in [0, 1], () or (B,): `f(v + r tan(max_angle) e)`, or
        `f((1 - r) v + r e)` by interpolation."""
        r = jnp.asarray(r, jnp.float32)
        r = r.reshape(r.shape + (1,) * (v.ndim - r.ndim))
        if self.options.noise_map == "tangent":
            return self.space.project(v + r * math.tan(math.radians(self.options.max_angle)) * e)
        return self.space.project((1.0 - r) * v + r * e)

    def generate(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: FewSteps
    ) -> tuple[Drawn, Trace]:
        return self._rounds(params, keys, labels, scale, sampler), {}

    def path(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: FewSteps
    ) -> Passed:
        """The predictions (steps, B, h, w, d), one a step."""
        return self._rounds(params, keys, labels, scale, sampler, states=True)[1]

    def _rounds(self, params, keys, labels, scale, sampler, states=False):
        return denoise_rounds(
            sampler,
            lambda v, y: self.network.apply(params["network"], v, labels=y),
            self.space.project,
            self.renoise,
            keys,
            self.tokenizer.latent_shape,
            labels,
            self.num_classes,
            scale,
            states,
        )

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """How evenly the projected held-out latents cover the sphere."""
        some = spaced_subset(split.heldout)
        (heldout,) = encoded(self.tokenizer, frozen, tools.map_over, some)

        def project(p, z):
            return self.space.project(z)

        latents = tools.map_over(project, {}, heldout.arrays["latents"])
        return Outcome(metrics=coverage(latents, heldout.arrays["labels"]))


METHOD = SphereLatent
