"""Published fields on our clock: t = 0 data, t = 1 noise, z_t = (1 - t) data + t noise.

A field is a function (z (B, h, w, d), t (B,), labels) -> (B, h, w, d); ours is the velocity
d z_t / d t = noise - data. LightningDiT and LightningDDT of RAE and HAE are on it already.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Field = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

LINEAR_BETAS = np.linspace(1e-4, 0.02, 1000)  # the schedule of DDPM and DiT


def from_data_at_one(field: Field) -> Field:
    """A velocity data - noise on a clock with data at t = 1: SiT, the original LightningDiT."""

    def velocity(z, t, labels):
        return -field(z, 1 - t, labels)

    return velocity


def from_unit_sphere(field: Field) -> Field:
    """A velocity of tokens on unit spheres, from tokens of norm sqrt(d): RJF (methods.md D.10)."""

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
