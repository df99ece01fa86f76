"""Flow matching between data latents and noise, in any space (methods.md A.3, D.7).

The space decides what a path, a tangent and a step are, so this one file is linear flow matching,
shell-linear, nlerp and slerp flow matching, Euclidean or Riemannian.
"""

import dataclasses

import jax
import jax.numpy as jnp

from sphere_jax.conversion import generators
from sphere_jax.conversion.weights import load_weights
from sphere_jax.geometry.spaces import Space
from sphere_jax.methods.latents import OnLatents
from sphere_jax.nn.functional import Network
from sphere_jax.options import FlowStage
from sphere_jax.sampling import Sampler, noise_of, sample, sample_times
from sphere_jax.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Flow(OnLatents):
    """A class-conditional velocity network on (projected) latents."""

    tokenizer: Tokenizer
    space: Space
    network: Network
    num_classes: int
    settings: FlowStage
    sampler: Sampler

    def begin(self):
        if not self.settings.pretrained:
            return None
        path, layouts = self.settings.pretrained, generators.layouts
        return {"network": load_weights(path, None, self.network, layouts)}

    def loss(self, params, frozen, batch, draws):
        """`mean |P v - u_t|^2 + radial_weight mean |v - P v|^2`, P the tangent projection at z_t.

        `batch["latents"]` (B, h, w, d) are normalised, not yet projected.
        """
        settings = self.settings
        noise_keys, time_keys, drop_keys = jax.vmap(lambda k: jax.random.split(k, 3))(draws).T
        z0 = self.space.project(batch["latents"])
        noise = noise_of(noise_keys, z0.shape[1:])
        t = sample_times(
            time_keys,
            settings.time_density,
            settings.time_mean,
            settings.time_std,
            settings.time_low,
            settings.time_high,
            settings.time_shift,
        )
        labels = self.drop_labels(drop_keys, batch["labels"])

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
