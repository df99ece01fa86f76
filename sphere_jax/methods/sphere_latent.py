"""Sphere Latent Encoder: few-step denoising on the global sphere of a tokenizer's latents.

methods.md B. The denoiser g takes no noise level; it predicts the clean latent. `f` is `spherify`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from sphere_jax.config.options import SphereLatentStage
from sphere_jax.evaluation.coverage import coverage
from sphere_jax.geometry.spaces import Space
from sphere_jax.losses.cosine import cosine_distance
from sphere_jax.methods.base import Outcome
from sphere_jax.methods.latents import OnLatents, encoded, evenly
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import FewSteps, denoise_rounds, noise_of
from sphere_jax.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class SphereLatent(OnLatents):
    """A class-conditional denoiser trained by reconstruction and consistency."""

    tokenizer: Tokenizer
    space: Space
    network: Network
    num_classes: int
    settings: SphereLatentStage
    sampler: FewSteps

    def loss(self, params, frozen, batch, draws):
        """`L_rec + L_con` (methods.md B.5)."""
        s = self.settings
        noise, level, drop = jax.vmap(lambda k: jax.random.split(k, 3))(draws).T
        clean = self.latents_of(frozen, batch)
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
        s, error = self.settings, a - b
        norm = jnp.mean(jnp.abs(error)) if s.distance == "l1" else jnp.mean(error**2)
        axes = None if s.cosine == "latent" else (3,)
        return s.distance_weight * norm + s.cosine_weight * cosine_distance(a, b, axes)

    def renoise(self, v, e, r):
        """v noised to the level r in [0, 1], () or (B,): `f(v + r tan(max_angle) e)`, or
        `f((1 - r) v + r e)` by interpolation."""
        r = jnp.asarray(r, jnp.float32)
        r = r.reshape(r.shape + (1,) * (v.ndim - r.ndim))
        if self.settings.noise_map == "tangent":
            return self.space.project(v + r * math.tan(math.radians(self.settings.max_angle)) * e)
        return self.space.project((1.0 - r) * v + r * e)

    def generate(self, params, keys, labels, scale, sampler):
        latents = denoise_rounds(
            sampler,
            lambda v, y: self.network.apply(params["network"], v, labels=y),
            self.space.project,
            self.renoise,
            keys,
            self.tokenizer.latent_shape,
            labels,
            self.num_classes,
            scale,
        )
        return latents, {}

    def finish(self, params, frozen, split, map_over):
        """How evenly the projected held-out latents cover the sphere."""
        some = evenly(split.heldout)
        heldout = encoded(self.tokenizer, some, frozen, map_over)

        def project(p, z):
            return self.space.project(z)

        latents = map_over(project, {}, heldout.arrays["latents"])
        return Outcome(metrics=coverage(latents, heldout.arrays["labels"]))
