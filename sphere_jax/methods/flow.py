"""Flow matching between data latents and noise, in any space (methods.md A.3, D.7).

The space decides what a path, a tangent and a step are, so this one file is linear flow matching,
shell-linear, data-projected, polar, nlerp and slerp flow matching, Euclidean or Riemannian.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from sphere_jax.config.options import FlowStage
from sphere_jax.geometry import sphere
from sphere_jax.geometry.spaces import Space
from sphere_jax.methods.latents import OnLatents
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import Guidance, Sampler, dimension_shift, noise_of, sample, sample_times
from sphere_jax.tokenizers import Tokenizer


def time_shift(settings: FlowStage, latent_shape: tuple[int, int, int]) -> float:
    """Of training times and of the sampler's grid alike."""
    return settings.time_shift or dimension_shift(latent_shape)


def jacobi_weight(angles: jax.Array, t: jax.Array, clock: str) -> jax.Array:
    """`(sin a / a)^2` (B, N), for angles (B, N) in rad between the ends and times (B,).

    Velocity errors along a geodesic spread as Jacobi fields, `sin a / a` after an arc a. The clock
    is "jacobi", `a = (1 - t) angle` as RJF's code has it: small weights near the data; or
    "jacobi_reversed", `a = t angle`, the arc that a sampler has yet to go (methods.md D.10).
    """
    left = 1.0 - t if clock == "jacobi" else t
    return sphere.sinc(left[:, None] * angles) ** 2


@dataclasses.dataclass(frozen=True)
class Flow(OnLatents):
    """A class-conditional velocity network on (projected) latents."""

    tokenizer: Tokenizer
    space: Space
    network: Network
    num_classes: int
    settings: FlowStage
    sampler: Sampler
    weaker: Network | None = None  # of auto-guidance; its parameters are params["weaker"]

    def loss(self, params, frozen, batch, draws):
        """`mean w |P v - u_t|^2 + radial_weight mean |v - P v|^2`, P the tangent projection at z_t.

        Latents (B, h, w, d) of the batch are normalised, not yet projected. The weight w is 1 or
        `jacobi_weight`; `velocity_error` among the metrics is without it.
        """
        settings = self.settings
        noise_keys, time_keys, drop_keys = jax.vmap(lambda k: jax.random.split(k, 3))(draws).T
        z0 = self.space.project(self.latents_of(frozen, batch))
        noise = noise_of(noise_keys, z0.shape[1:])
        t = sample_times(
            time_keys,
            settings.time_density,
            settings.time_mean,
            settings.time_std,
            settings.time_low,
            settings.time_high,
            time_shift(settings, z0.shape[1:]),
        )
        labels = self.drop_labels(drop_keys, batch["labels"])

        z1 = self.space.prior(noise)
        z_t, u_t = self.space.interpolate(z0, z1, t)
        v = self.network.apply(params["network"], z_t, t, labels)
        tangent, radial = self.space.split(z_t, v)
        compared = tangent if settings.tangent_projection else v
        squares = (compared - u_t) ** 2
        velocity_error = weighted_error = jnp.mean(squares)
        if settings.loss_weight != "none":
            weight = jacobi_weight(self.space.angles(z0, z1), t, settings.loss_weight)
            weighted_error = jnp.mean(weight[..., None] * squares.reshape(*weight.shape, -1))
        radial_error = jnp.mean(radial**2)
        loss = weighted_error + settings.radial_weight * radial_error
        return loss, {"velocity_error": velocity_error, "radial_error": radial_error}

    def generate(self, params, keys, labels, scale, sampler):
        """Latents on the space (B, h, w, d), and the mean `radius` after every step."""
        noise = noise_of(keys, self.tokenizer.latent_shape)
        weaker = self.weaker and partial(self.weaker.apply, params["weaker"])
        latents, radius = sample(
            partial(self.network.apply, params["network"]),
            self.space,
            noise,
            labels,
            self.num_classes,
            sampler,
            scale if sampler.scale != 1.0 else None,
            weaker=weaker,
            trajectory=True,
        )
        return self.space.project(latents), {"radius": radius}

    def preview(self, params, frozen, batch, key):
        """Without guidance where that needs a weaker network, which training does not load."""
        if self.sampler.guidance.auto:
            plain = dataclasses.replace(self.sampler, guidance=Guidance())
            return dataclasses.replace(self, sampler=plain).preview(params, frozen, batch, key)
        return super().preview(params, frozen, batch, key)
