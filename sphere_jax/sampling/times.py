"""Times in [0, 1], 0 data and 1 noise: the shift, the grid of samplers, the training densities.

docs/systems/shared.md#time-densities-and-shift (shift, truncated logit-normal) and
docs/systems/hae.md#flow.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Float32

from sphere_jax.common.shapes import AnyArray, Keys, OneKey, PerSample, Scalar

DENSITIES = ("uniform", "logit_normal", "truncated_logit_normal")


def shift(t: float | Float[AnyArray, " *shape"], a: Scalar) -> float | Float[AnyArray, " *shape"]:
    """`S_a(t) = a t / (1 + (a - 1) t)`, t of any shape: a > 1 moves mass toward noise.

    The inverse is `S_{1/a}`.
    """
    return a * t / (1.0 + (a - 1.0) * t)


_shift = shift  # the functions below have a parameter of that name


def dimension_shift(latent_shape: tuple[int, ...]) -> float:
    """`sqrt(h w d / 4096)`: the shift of docs/systems/hae.md#flow, 1 for latents of 4,096
    numbers."""
    return math.sqrt(math.prod(latent_shape) / 4096)


def time_grid(
    steps: int, shift: float = 1.0, t_end: float = 0.0
) -> Float32[np.ndarray, " {steps}+1"]:
    """Times `(steps + 1,)` of `steps` steps, from exactly 1 to `S_shift(t_end)`.

    The grid is uniform from 1 to t_end before the shift, which maps 0 to 0.

    Raises:
        ValueError: for steps < 1, shift <= 0 or t_end outside [0, 1).
    """
    if steps < 1:
        raise ValueError(f"steps is 1 or more, not {steps}")
    if not shift > 0.0:
        raise ValueError(f"shift is positive, not {shift}")
    if not 0.0 <= t_end < 1.0:
        raise ValueError(f"t_end lies in [0, 1), not {t_end}")
    return _shift(np.linspace(1.0, t_end, steps + 1), shift).astype(np.float32)


def sde_time_grid(
    steps: int, shift: float = 1.0, last_step: float = 0.04
) -> Float32[np.ndarray, " {steps}+1"]:
    """Times `(steps + 1,)` from 1 to 0, of which the last step begins at `S_shift(last_step)`: the
    grid of SiT's SDE, whose other steps have one length before the shift.

    Raises:
        ValueError: for steps < 1, shift <= 0 or last_step outside (0, 1).
    """
    if not 0.0 < last_step < 1.0:
        raise ValueError(f"last_step lies between 0 and 1, not {last_step}")
    before = time_grid(max(steps - 1, 1), shift, last_step)[:steps]
    return np.append(before, np.float32(0.0))


def _normal_cdf_of_logit(t, mean, std):
    """`Phi((logit t - mean) / std)`, exactly 0 at t = 0 and 1 at t = 1."""
    if t in (0.0, 1.0):
        return float(t)
    return 0.5 * math.erfc((mean - math.log(t / (1.0 - t))) / (std * math.sqrt(2.0)))


def sample_times(
    keys: Keys,
    density: str = "uniform",
    mean: float = 0.0,
    std: float = 1.0,
    low: float = 0.0,
    high: float = 1.0,
    shift: float = 1.0,
) -> PerSample:
    """Training times `(B,)`, one for each of the keys `(B,)`.

    density: "uniform" on [low, high]; "logit_normal", `sigmoid(mean + std n)`; or
    "truncated_logit_normal", the same given low <= t <= high, by inversion of its distribution
    function. The shift is applied last.

    Raises:
        ValueError: for an unknown density or a range outside 0 <= low < high <= 1.
    """
    if density not in DENSITIES:
        raise ValueError(f"density is one of {', '.join(DENSITIES)}, not {density!r}")
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"times need 0 <= low < high <= 1, not {low} and {high}")
    if density == "logit_normal":
        if (low, high) != (0.0, 1.0):
            raise ValueError("a range needs density 'truncated_logit_normal', not 'logit_normal'")
        t = jax.nn.sigmoid(mean + std * jax.vmap(jax.random.normal)(keys))
    else:
        u = jax.vmap(jax.random.uniform)(keys)
        if density == "uniform":
            t = low + (high - low) * u
        else:
            a, b = (_normal_cdf_of_logit(end, mean, std) for end in (low, high))
            t = jnp.clip(jax.nn.sigmoid(mean + std * ndtri(a + (b - a) * u)), low, high)
    return _shift(t, shift)


def stratified(key: OneKey, size: int, group: int) -> Float32[Array, " {size}"]:
    """Numbers `(size,)` in [0, 1], stratified over every `group` of samples. arXiv 2602.15030;
    docs/systems/sphere_encoder.md#noise.

    A group holds, in random order, exactly 0, exactly 1 and one sample from each of `group - 2`
    equal strata, a thousandth of a stratum above its start or more.

    Raises:
        ValueError: if `group` is below 3 or does not divide `size`.
    """
    if group < 3 or size % group:
        raise ValueError(f"groups of {group} (3 or more) must divide {size}")
    jitter_key, order_key = jax.random.split(key)
    jitter = jnp.maximum(jax.random.uniform(jitter_key, (size // group, group - 2)), 1e-3)
    inner = (jnp.arange(group - 2, dtype=jnp.float32)[None] + jitter) / (group - 2)
    ends = jnp.broadcast_to(jnp.array([[0.0, 1.0]]), (size // group, 2))
    rows = jnp.concatenate([inner, ends], axis=1)
    return jax.random.permutation(order_key, rows, axis=1, independent=True).reshape(size)
