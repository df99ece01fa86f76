"""How flow-sphere draws: a point of the sphere is decoded, and the decode refined by a few steps
(docs/systems/flow_sphere.md#sampling, #editing). Time as in `methods.flow_sphere`."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from sphere_jax.common.shapes import (
    AnyArray,
    Images,
    Keys,
    Labels,
    Latents,
    OneKey,
    PerSample,
    Scalar,
)
from sphere_jax.config.options import StageOptions
from sphere_jax.geometry import sphere
from sphere_jax.methods.base import Batch, Drawn, Params, Passed, Pictures, Trace
from sphere_jax.methods.spherical_autoencoder import SphericalAutoencoder
from sphere_jax.nn.functional import Network
from sphere_jax.nn.pixels import to_uint8
from sphere_jax.sampling import Refinement, folded, noise_of, refine_steps, sample_keys
from sphere_jax.tokenizers.flow_sphere import FlowSphere


class FlowSphereSampling(SphericalAutoencoder):
    """A subclass is a dataclass with these fields, whose options have `max_angle`, and says how the
    networks learn."""

    tokenizer: FlowSphere
    refiner: Network
    num_classes: int
    options: StageOptions
    sampler: Refinement

    shows_path = True
    edits: ClassVar = {"reconstruct": {}, "interpolate": {}, "manipulate": {}}

    def predict(
        self,
        params: Params,
        x_t: Images,
        t: PerSample,
        latents: Latents,
        tokens: Float[AnyArray, "batch tokens features"],
        labels: Labels | None,
    ) -> Images:
        """The refiner's clean images (B, H, W, C) of noisy ones at times t (B,), float32."""
        return self.refiner.apply(
            params["refiner"], x_t, 1.0 - t, latents, tokens, labels if self.conditional else None
        )

    def noised(self, v: Latents, e: Latents, sigma: Scalar | PerSample) -> Latents:
        """`f(v + sigma e)`: at the angle `atan sigma` from v of RMS 1."""
        sigma = jnp.asarray(sigma, jnp.float32)
        sigma = sigma.reshape(sigma.shape + (1,) * (v.ndim - sigma.ndim))
        return sphere.spherify(v + sigma * e)

    def generate(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: Refinement
    ) -> tuple[Drawn, Trace]:
        return self.rough_and_refined(params, keys, labels, scale, sampler)[1], {}

    def path(
        self, params: Params, keys: Keys, labels: Labels, scale: Scalar, sampler: Refinement
    ) -> Passed:
        """The images (steps + 1, B, H, W, C) of the refinement, the first mixed with noise."""
        return self.rough_and_refined(params, keys, labels, scale, sampler, states=True)[1]

    def rough_and_refined(
        self,
        params: Params,
        keys: Keys,
        labels: Labels,
        scale: Scalar,
        sampler: Refinement,
        latents: Latents | None = None,
        states: bool = False,
    ) -> tuple[Images, Images | Passed]:
        """The decode of a point of the sphere, by default a random one, and its refinement, or all
        `states` of it (steps + 1, B, ...): float images (B, H, W, C) in [-1, 1]
        (docs/systems/flow_sphere.md#sampling)."""
        first, second = jax.vmap(lambda k: jax.random.split(k))(keys).T
        if latents is None:
            latents = sphere.spherify(noise_of(first, self.tokenizer.latent_shape))
        given = labels if self.conditional else None
        rough, tokens = self.tokenizer.decode_with_tokens(params, latents, given)
        noise = noise_of(second, rough.shape[1:])

        def predict(x, t, v, h, labels):
            return self.predict(params, x, t, v, h, labels)

        refined = refine_steps(
            sampler,
            predict,
            rough,
            noise,
            (latents, tokens),
            labels,
            self.num_classes,
            scale,
            states,
        )
        return jnp.clip(rough, -1.0, 1.0), jnp.clip(refined, -1.0, 1.0)

    def refine(
        self,
        params: Params,
        keys: Keys,
        labels: Labels,
        scale: Scalar,
        sampler: Refinement,
        images: Images | None = None,
        latents: Latents | None = None,
        noise: Latents | None = None,
    ) -> Images:
        """Float images (B, H, W, C): decoded from `latents`, or from those of `images` with noise
        of `sampler.strength` on them, then refined. `noise` (B, h, w, d) takes the place of that of
        the keys."""
        if images is not None:
            latents = self.tokenizer.encode(params, images)
            # Draws 0 and 1 are the two keys of `rough_and_refined`.
            e = noise_of(folded(keys, 2), latents.shape[1:]) if noise is None else noise
            sigma = sampler.strength * math.tan(math.radians(self.options.max_angle))
            latents = self.noised(latents, e, sigma)
        return self.rough_and_refined(params, keys, labels, scale, sampler, latents)[1]

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """Rows of decodes above rows of their refinements; always the same noise."""
        rows = 2 if not self.conditional else min(self.num_classes, 5)
        labels = jnp.repeat(jnp.arange(rows) % self.num_classes, self.preview_columns)
        keys = sample_keys(key, jnp.arange(len(labels)))
        pairs = self.rough_and_refined(params, keys, labels, self.sampler.scale, self.sampler)
        rows = [to_uint8(x).reshape(rows, self.preview_columns, *x.shape[1:]) for x in pairs]
        return jnp.stack(rows, axis=1).reshape(-1, *rows[0].shape[2:])
