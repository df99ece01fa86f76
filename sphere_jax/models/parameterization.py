"""Published parameterizations in terms of ours: what a network predicts, and in which time.

A field is a function (z (B, h, w, d), t (B,), labels) -> (B, h, w, d). Ours is "noise_at_one": with
t = 0 at the data and t = 1 at the noise, z_t = (1 - t) data + t noise, it is the velocity
d z_t / d t = noise - data. LightningDiT and LightningDDT of RAE and HAE predict it already.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphere_jax.common.shapes import Labels, Latents, PerSample
from sphere_jax.config.option import option
from sphere_jax.config.options import NetworkOptions, SpaceOptions
from sphere_jax.nn.functional import Network, Params

Parameterization = Literal["noise_at_one", "data_at_one", "noise_prediction", "unit_sphere"]
Field = Callable[[Latents, PerSample, Labels], jax.Array]

LINEAR_BETAS = np.linspace(1e-4, 0.02, 1000)  # the schedule of DDPM and DiT


def from_data_at_one(field: Field) -> Field:
    """A velocity data - noise, with the data at t = 1: SiT, the original LightningDiT."""

    def velocity(z, t, labels):
        return -field(z, 1 - t, labels)

    return velocity


def from_unit_sphere(field: Field) -> Field:
    """A velocity of tokens on unit spheres, from tokens of norm sqrt(d): RJF (arXiv 2602.10099;
    docs/systems/hae.md#rjf)."""

    def velocity(z, t, labels):
        return math.sqrt(z.shape[-1]) * field(z, t, labels)

    return velocity


def from_noise_prediction(field: Field, betas: np.ndarray = LINEAR_BETAS) -> Field:
    """A prediction of the noise in a x0 + s noise, a^2 + s^2 = 1, at steps 0, 1, ...: DiT.

    `field` is called with the step as a float, between two steps where t is: linear in log(s / a).
    Our z_t is a multiple of its input, so that this is a change of variables and no approximation,
    between the times of the first and the last step (0.010 and 0.994 for DiT). Outside, the
    velocity is that of the nearest of them.
    """
    signal = np.cumprod(1 - np.asarray(betas, np.float64))  # a^2
    noisiness = 0.5 * np.log((1 - signal) / signal)  # log(s / a), which is log(t / (1 - t))
    first, last = (1 / (1 + np.exp(-noisiness[[0, -1]]))).astype(np.float32)

    def velocity(z, t, labels):
        t = jnp.clip(t, first, last)
        step = jnp.interp(
            jnp.log(t / (1 - t)),
            jnp.asarray(noisiness, jnp.float32),
            jnp.arange(len(noisiness), dtype=jnp.float32),
        )
        t = t.reshape(-1, 1, 1, 1)
        noise = field(z / jnp.sqrt(jnp.square(1 - t) + jnp.square(t)), step, labels)
        return (noise - z) / (1 - t)  # z = (1 - t) data + t noise

    return velocity


ADAPTERS = {
    "data_at_one": from_data_at_one,
    "noise_prediction": from_noise_prediction,
    "unit_sphere": from_unit_sphere,
}


def parameterization_option() -> Any:
    """The option of networks that are published in several parameterizations."""
    return option(
        "noise_at_one",
        formerly="clock",
        help="what the network predicts: noise - data (t = 1 is noise), data - noise (t = 1 is "
        "data), the noise, or a velocity in units of the token radius",
    )


def as_our_velocity(parameterization: str, build: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """The network of the module that `build` makes, its field translated to ours."""
    if parameterization == "noise_at_one":
        return Network(build)
    return Reparameterized(build, ADAPTERS[parameterization])


class Reparameterized(Network):
    """A network whose field is translated to ours by one of `ADAPTERS`."""

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module], adapter: Callable[[Field], Field]):
        super().__init__(build)
        self._adapter = adapter

    def apply(self, params: Params, z: Latents, t: PerSample, labels: Labels) -> Latents:
        return self._adapter(partial(super().apply, params))(z, t, labels)


def unfit_space(options: NetworkOptions, space: SpaceOptions) -> str:
    """Why a parameterization does not fit a space, as `LatentNetwork.unfit_space` says it."""
    fits = space.projects and space.sphere == "token" and space.radius == 0.0
    if options.parameterization != "unit_sphere" or fits:
        return ""
    return (
        "parameterization='unit_sphere' means velocities of tokens in units of their radius "
        "sqrt(d): set config.space.sphere='token', config.space.radius=0 and a path on spheres."
    )
