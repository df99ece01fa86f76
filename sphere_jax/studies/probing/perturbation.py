"""Small changes of a token's length or direction, and how large they are.

Matched perturbation is docs/systems/spherical_flow.md#probes, fixed norms and noise on the
direction are docs/systems/hae.md#probes.
"""

import math

import jax
import jax.numpy as jnp

from sphere_jax.geometry import sphere

ETAS = (0.05, 0.1, 0.2, 0.4, 0.8)  # displacement over the token's norm
MULTIPLES = (0.6, 0.8, 1.0, 1.25, 1.6)  # of the mean norm; HAE shows 8 to 20, best decoded at 14
SIGMAS = (0.05, 0.1, 0.2)  # of noise on a unit direction; HAE shows 0.1
CHANNELS = 1024  # of HAE, where 0.1 a channel turns by 72.6 degrees


def equal_turn(d: int) -> float:
    """The noise that turns d channels as far as 0.1 turns HAE's 1024."""
    return 0.1 * math.sqrt((CHANNELS - 1) / (d - 1))


@jax.jit
def radial_jitter(z: jax.Array, noise: jax.Array, eta: float) -> jax.Array:
    """`(1 ± eta) z`: each token (B, h, w, d) longer or shorter, by the sign of its noise."""
    return z * (1.0 + eta * jnp.sign(noise[..., :1]))


@jax.jit
def angular_jitter(z: jax.Array, noise: jax.Array, eta: float) -> jax.Array:
    """Each token turned in the direction of its noise, its norm unchanged.

    By the angle at which the chord is as long as the change of `radial_jitter`:
    `2 sin(theta / 2) = eta`, eta in [0, 2].
    """
    u = sphere.normalize(z)
    q = sphere.normalize(sphere.tangent(u, noise))
    turned = sphere.exact_angle_noise(u, q, 2.0 * jnp.arcsin(eta / 2.0))
    return turned * sphere.safe_norm(z)[..., None]


@jax.jit
def fixed_norm(z: jax.Array, norm: float) -> jax.Array:
    """Every token (B, h, w, d) at one norm, its direction unchanged."""
    return sphere.normalize(z, norm)


@jax.jit
def direction_noise(z: jax.Array, noise: jax.Array, sigma: float) -> jax.Array:
    """`sigma` times standard noise on the unit direction, renormalised; norms are unchanged."""
    u = sphere.normalize(z)
    return sphere.normalize(u + sigma * noise, sphere.safe_norm(z)[..., None])


@jax.jit
def mean_angle(z: jax.Array, w: jax.Array) -> jax.Array:
    """Angle between the tokens of two latents, averaged over each: (B,), in degrees."""
    turned = sphere.angle(sphere.normalize(z), sphere.normalize(w))
    return jnp.degrees(jnp.mean(turned, axis=(1, 2)))
