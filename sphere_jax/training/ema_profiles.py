"""Averages of parameters with power-function profiles, and other profiles computed from them.

Karras et al. 2024 (2312.02696, section 3). The profile of exponent gamma after t updates weights
the parameters of update x by `p(x) = (gamma + 1) x^gamma / t^(gamma + 1)`. It is named by its
relative width, the standard deviation of p over t, so it grows with the run, unlike an exponential
average. A profile that was not tracked is a least-squares combination of snapshots of tracked ones.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int32, PyTree

Numbers = Float[np.ndarray, "..."] | float

WIDEST = 1 / math.sqrt(12)  # of the plain mean of a whole run, gamma = 0


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the profile whose width is `sigma_rel` times the length of the run.

    It is the largest root of `(gamma + 2)^2 (gamma + 3) = (gamma + 1) / sigma_rel^2`. Raises
    ValueError outside (0, 0.2887), where gamma would not be positive.
    """
    if not 0.0 < sigma_rel < WIDEST:
        raise ValueError(f"a relative width lies between 0 and {WIDEST:.4f}, not {sigma_rel}")
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots[np.abs(roots.imag) < 1e-6 * inverse].real.max())


def update_profile(
    average: PyTree[Float32[Array, "..."], " T"],
    params: PyTree[Float[Array, "..."], " T"],
    sigma_rel: float,
    updates: Int32[Array, ""],
) -> PyTree[Float32[Array, "..."], " T"]:
    """The average after one more than `updates` updates (0 at the first call, which ignores
    `average`).

    `m <- beta m + (1 - beta) theta` with `beta = (1 - 1/t)^(gamma + 1)`, t from 1. This weights
    theta_x by the integral of the profile from x - 1 to x: exact for parameters that are constant
    between updates.
    """
    t = updates.astype(jnp.float32) + 1.0
    # -expm1 keeps the digits of 1 - beta, which tends to (gamma + 1) / t.
    rest = -jnp.expm1((gamma_of(sigma_rel) + 1.0) * jnp.log1p(-1.0 / t))
    return jax.tree.map(lambda m, p: m + rest * (p.astype(jnp.float32) - m), average, params)


def inner_product(
    t_a: Numbers,
    gamma_a: Numbers,
    t_b: Numbers,
    gamma_b: Numbers,
) -> Float64[np.ndarray, "..."] | np.float64:
    """`integral p_a(x) p_b(x) dx` of two profiles, in closed form. Arrays broadcast."""
    t_a, gamma_a, t_b, gamma_b = (np.asarray(x, np.float64) for x in (t_a, gamma_a, t_b, gamma_b))
    short = np.minimum(t_a, t_b)
    exponents = gamma_a + gamma_b + 1.0
    scale = (gamma_a + 1.0) * (gamma_b + 1.0) / exponents / short
    return scale * (short / t_a) ** (gamma_a + 1.0) * (short / t_b) ** (gamma_b + 1.0)


def combination(
    t: Float64[np.ndarray, " n"],
    gamma: Float64[np.ndarray, " n"],
    target_t: int,
    target_gamma: float,
) -> tuple[Float64[np.ndarray, " n"], float]:
    """Weights of snapshots whose weighted sum is nearest to a profile, and the relative error.

    Snapshot i is the average with exponent gamma[i] after t[i] updates. Nearest in the L2 norm of
    profiles, among weights that sum to 1, which leaves constant parameters unchanged. The error is
    the norm of the difference divided by the norm of the target.
    """
    gram = inner_product(t[:, None], gamma[:, None], t[None], gamma[None])
    products = inner_product(t, gamma, target_t, target_gamma)
    # With a unit diagonal, and a multiplier for the sum.
    scale = 1 / np.sqrt(np.diag(gram))
    system = np.block([[scale[:, None] * gram * scale[None], scale[:, None]], [scale[None], 0.0]])
    solution = np.linalg.lstsq(system, np.append(scale * products, 1.0))[0]
    weights = scale * solution[:-1]
    norm = float(inner_product(target_t, target_gamma, target_t, target_gamma))
    error = norm - 2 * weights @ products + weights @ gram @ weights
    return weights, math.sqrt(max(error, 0.0) / norm)
