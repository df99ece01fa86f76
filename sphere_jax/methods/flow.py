"""Flow matching between data latents and noise, in any space (methods.md A.3, D.7).

The space decides what a path, a tangent and a step are, so this one file is linear flow matching,
shell-linear, nlerp and slerp flow matching, Euclidean or Riemannian.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.geometry.spaces import Space
from sphere_jax.methods.base import Generator
from sphere_jax.methods.latents import encoded_split, has_images
from sphere_jax.nn.functional import Network
from sphere_jax.options import FlowStage
from sphere_jax.sampling import Sampler, noise_of, sample, sample_keys, sample_times
from sphere_jax.tokenizers import Tokenizer
from sphere_jax.tokenizers.images import to_uint8


@dataclasses.dataclass(frozen=True)
class Flow(Generator):
    """A class-conditional velocity network on (projected) latents."""

    tokenizer: Tokenizer
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
        return has_images(self.tokenizer)

    def frozen(self, artifacts):
        return {name: artifacts[name] for name in self.tokenizer.parts}

    def init(self, key, frozen):
        return {"network": self.network.init(key)}

    def source(self, split, frozen, map_over):
        """Every image encoded once; the projection happens in the loss."""
        return encoded_split(self.tokenizer, split, frozen, map_over)

    def batch_shapes(self):
        return {"latents": (self.tokenizer.latent_shape, np.float32), "labels": ((), np.int32)}

    def fixed_tables(self):
        return {"network": self.network.module.fixed_table_size}

    def loss(self, params, frozen, batch, draws):
        """`mean |P v - u_t|^2 + radial_weight mean |v - P v|^2`, P the tangent projection at z_t.

        `batch["latents"]` (B, h, w, d) are normalised, not yet projected.
        """
        settings = self.settings
        noise_keys, time_keys, drop_keys = jax.vmap(lambda k: jax.random.split(k, 3))(draws).T
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

    def generate(self, params, keys, labels, scale, sampler):
        """Latents on the space (B, h, w, d), and the mean `radius` after every step."""
        noise = noise_of(keys, self.tokenizer.latent_shape)
        latents, radius = sample(
            lambda z, t, y: self.network.apply(params["network"], z, t, y),
            self.space,
            noise,
            labels,
            self.num_classes,
            sampler,
            scale if sampler.scale != 1.0 else None,
            trajectory=True,
        )
        return self.space.project(latents), {"radius": radius}

    def images(self, params, samples):
        return to_uint8(self.tokenizer.decode(params, samples))

    def preview(self, params, frozen, batch, key):
        """Samples of every class (of the first ten), one class a row; always the same noise."""
        if not self.has_images:
            return None
        labels = jnp.repeat(jnp.arange(min(self.num_classes, 10)), self.preview_columns)
        keys = sample_keys(key, jnp.arange(len(labels)))
        latents, _ = self.generate(params, keys, labels, self.sampler.scale, self.sampler)
        return self.images(frozen, latents)
