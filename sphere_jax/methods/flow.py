"""Flow matching between data latents and noise, in any space (methods.md A.3, D.7).

The space decides what a path, a tangent and a step are, so this one file is linear flow matching,
shell-linear, nlerp and slerp flow matching, Euclidean or Riemannian.
"""

import dataclasses

import jax
import jax.numpy as jnp

from sphere_jax.config import FlowStage
from sphere_jax.data.sources import Source, Split
from sphere_jax.geometry.spaces import Space
from sphere_jax.methods.outcome import Outcome
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import Sampler, sample, sample_noise, sample_times
from sphere_jax.tokenizers.conv_vae import ConvVAE
from sphere_jax.tokenizers.images import to_float, to_uint8
from sphere_jax.tokenizers.precomputed import Precomputed


@dataclasses.dataclass(frozen=True)
class Flow:
    """A class-conditional velocity network on (projected) latents."""

    tokenizer: ConvVAE | Precomputed
    space: Space
    network: Network
    num_classes: int
    settings: FlowStage
    sampler: Sampler
    trains = ("network",)
    preview_columns = 8
    is_transformer = True  # no convolution in the loss

    @property
    def has_images(self) -> bool:
        """Whether samples can be decoded here."""
        return isinstance(self.tokenizer, ConvVAE)

    def frozen(self, artifacts):
        names = ("encoder", "decoder", "statistics") if self.has_images else ()
        return {name: artifacts[name] for name in names}

    def init(self, key, frozen):
        return {"network": self.network.init(key)}

    def source(self, split, frozen, map_over):
        """Every image encoded once; the projection happens in the loss."""
        if not self.has_images:
            return split

        def encoded(source: Source) -> Source:
            latents = map_over(self._encode, frozen, source.arrays["images"])
            return Source({"latents": latents, "labels": source.arrays["labels"]})

        return Split(encoded(split.train), encoded(split.heldout))

    def _encode(self, params, images):
        return self.tokenizer.encode(params, to_float(images))

    def loss(self, params, frozen, batch, keys):
        """`mean |P v - u_t|^2 + radial_weight mean |v - P v|^2`, P the tangent projection at z_t.

        `batch["latents"]` (B, h, w, d) are normalised, not yet projected.
        """
        settings = self.settings
        noise_keys, time_keys, drop_keys = jax.vmap(lambda k: jax.random.split(k, 3))(keys).T
        z0 = self.space.project(batch["latents"])
        noise = jax.vmap(lambda k: jax.random.normal(k, z0.shape[1:]))(noise_keys)
        t = sample_times(
            time_keys,
            settings.time_density,
            settings.time_mean,
            settings.time_std,
            settings.time_low,
            settings.time_high,
            settings.time_shift,
        )
        dropped = jax.vmap(jax.random.uniform)(drop_keys) < settings.label_dropout
        labels = jnp.where(dropped, self.num_classes, batch["labels"])

        z_t, u_t = self.space.interpolate(z0, self.space.prior(noise), t)
        v = self.network.apply(params["network"], z_t, t, labels)
        tangent, radial = self.space.split(z_t, v)
        compared = tangent if settings.tangent_projection else v
        velocity_error = jnp.mean((compared - u_t) ** 2)
        radial_error = jnp.mean(radial**2)
        loss = velocity_error + settings.radial_weight * radial_error
        return loss, {"velocity_error": velocity_error, "radial_error": radial_error}

    def generate(self, params, noise, labels, scale, sampler: Sampler | None = None):
        """Latents on the space (B, h, w, d), and the mean radius after every step.

        `scale` may be traced; it is read only where the sampler's guidance is on.
        """
        sampler = sampler or self.sampler
        guided = sampler.guidance.scale != 1.0
        latents, radius = sample(
            lambda z, t, y: self.network.apply(params["network"], z, t, y),
            self.space,
            noise,
            labels,
            self.num_classes,
            sampler,
            scale if guided else None,
            trajectory=True,
        )
        return self.space.project(latents), radius

    def decode(self, params, latents):
        """Latents to uint8 images (B, H, W, C)."""
        return to_uint8(self.tokenizer.decode(params, latents))

    def preview(self, params, frozen, batch, key):
        """Samples of every class (of the first ten), one class a row; always the same noise."""
        if not self.has_images:
            return None
        labels = jnp.repeat(jnp.arange(min(self.num_classes, 10)), self.preview_columns)
        noise = sample_noise(key, jnp.arange(len(labels)), self.tokenizer.latent_shape)
        latents, _ = self.generate(params, noise, labels, self.sampler.guidance.scale)
        return self.decode(frozen, latents)

    def finish(self, params, frozen, split, map_over):
        return Outcome()
