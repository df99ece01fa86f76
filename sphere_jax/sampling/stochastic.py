"""SiT's SDE, and the step rule that solves it.

With t = 1 noise and t = 0 data, a linear path from Gaussian noise has the score `s = -(z + (1 - t)
v) / t`. The reverse SDE `dz = (v - D s) dt + sqrt(2 D) dw` has the flow's distributions at every t
for any diffusion D(t) >= 0; SiT samples with `D = t` (its "sigma" form).
"""

import jax.numpy as jnp
from jaxtyping import Int

from sphere_jax.common.shapes import AnyArray, Keys, Latents, Scalar
from sphere_jax.geometry.spaces import Euclidean
from sphere_jax.sampling.noise import folded, noise_of
from sphere_jax.sampling.solvers import Velocity, rule_of

NoisePast = tuple[Keys, Int[AnyArray, ""]]  # keys of the samples (B,), number of steps so far


@rule_of(1, remembers=True)
def euler_maruyama(
    velocity: Velocity, space: Euclidean, z: Latents, t: Scalar, t_next: Scalar, past: NoisePast
) -> tuple[Latents, NoisePast]:
    """`z + h (D s - v) + sqrt(2 D h) n` from t to `t_next = t - h` (arXiv 2401.08740).

    A step that ends at t = 0 is the mean: it adds no noise n, which is a function of (key, step).
    """
    keys, number = past
    h, v = t - t_next, velocity(z, t)
    mean = z - h * (v + (z + (1.0 - t) * v))  # -t s is the noise that z holds
    fresh = noise_of(folded(keys, number + 1), z.shape[1:])
    return mean + jnp.where(t_next > 0.0, jnp.sqrt(2.0 * t * h), 0.0) * fresh, (keys, number + 1)
