"""Guidance and the steps in which it acts.

Classifier-free: `v_u + w (v_c - v_u)`, in one batched call. Auto-guidance: `v_w + w (v_c - v_w)`,
away from a weaker network that has the same label. DiT, SiT and LightningDiT were released with
code that guides the first 3 channels of a latent only; the others keep v_c.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from sphere_jax.common.shapes import AnyArray, Labels, Latents, PerSample, Scalar

ROUNDING = 1e-6

VelocityNetwork = Callable[[Latents, PerSample, Labels], Latents]


@dataclass(frozen=True)
class Guidance:
    """Scale w and the interval of times [low, high] in which it acts; w = 1 is off.

    auto: name of the weaker network of auto-guidance; "" is classifier-free guidance.
    channels: how many channels are guided, from the first on; 0 means all.

    Raises:
        ValueError: unless 0 <= low <= high <= 1 and 0 <= channels.
    """

    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0
    auto: str = ""
    channels: int = 0

    def __post_init__(self):
        if not 0.0 <= self.low <= self.high <= 1.0:
            raise ValueError(
                f"guidance needs 0 <= low <= high <= 1, not {self.low} and {self.high}"
            )
        if self.channels < 0:
            raise ValueError(f"guided channels are 0 (all) or more, not {self.channels}")


def segments(
    times: Float32[np.ndarray, " times"], guidance: Guidance
) -> list[tuple[int, int, bool]]:
    """Consecutive steps that are all guided, or all not: `(start, stop, guided)` of each segment.

    The step from `times[i]` to `times[i + 1]` is guided if its start lies in the interval and the
    scale is not 1; all evaluations of one step are guided alike. Times are float32, the ends of
    the interval are not: a start within ROUNDING of an end is in it.
    """
    low, high = guidance.low - ROUNDING, guidance.high + ROUNDING
    guided = [guidance.scale != 1.0 and low <= float(t) <= high for t in times[:-1]]
    edges = [i for i in range(1, len(guided)) if guided[i] != guided[i - 1]]
    bounds = [0, *edges, len(guided)]
    return [(a, b, guided[a]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def intervals(start: float, stop: float, guidance: Guidance) -> list[tuple[float, float, bool]]:
    """The times from `start` down to `stop` in intervals that are all guided, or all not: `(from,
    to, guided)` of each, for solvers that choose their steps."""
    if guidance.scale == 1.0:
        return [(start, stop, False)]
    high, low = (min(max(end, stop), start) for end in (guidance.high, guidance.low))
    found = [(start, high, False), (high, low, True), (low, stop, False)]
    return [(a, b, on) for a, b, on in found if a > b]


def extrapolated(
    v: Float32[Array, "*output"],
    v_from: Float32[Array, "*output"],
    scale: Scalar,
    channels: int = 0,
) -> Float32[Array, "*output"]:
    """`v_from + scale (v - v_from)` in the first `channels` of the last axis, 0 for all; v in the
    others."""
    found = v_from + scale * (v - v_from)
    if channels == 0:
        return found
    return jnp.concatenate([found[..., :channels], v[..., channels:]], axis=-1)


def guided(
    network: Callable[..., Float[Array, " 2*batch *output"]],
    inputs: tuple[AnyArray, ...],
    labels: Labels,
    null_label: int,
    scale: Scalar,
    channels: int = 0,
) -> Float32[Array, " batch *output"]:
    """`y_u + scale (y_c - y_u)` with `y = network(*inputs, labels)`: one call on 2B rows.
    `channels` as in `extrapolated`.

    Inputs are `(B, ...)`, labels `(B,)` or mixtures `(B, K + 1)`. Rows 2i and 2i + 1 are sample i
    with its label and without, so that each device keeps its part of the batch (two halves, one
    after the other, would move it).
    """

    def pair(a, b):
        return jnp.stack([a, b], axis=1).reshape((2 * a.shape[0], *a.shape[1:]))

    if labels.ndim == 2:
        null = jnp.broadcast_to(jax.nn.one_hot(null_label, labels.shape[1])[None], labels.shape)
    else:
        null = jnp.full_like(labels, null_label)
    y = network(*(pair(x, x) for x in inputs), pair(labels, null)).astype(jnp.float32)
    y = y.reshape(labels.shape[0], 2, *y.shape[1:])
    return extrapolated(y[:, 0], y[:, 1], scale, channels)


def guided_velocity(
    network: VelocityNetwork,
    z: Latents,
    t: PerSample,
    labels: Labels,
    null_label: int,
    scale: Scalar,
    channels: int = 0,
) -> Latents:
    """`v_u + scale (v_c - v_u)` at z `(B,h,w,d)`, t `(B,)`: one call of the network on 2B rows.
    `channels` as in `extrapolated`."""
    return guided(network, (z, t), labels, null_label, scale, channels)


def auto_guided_velocity(
    network: VelocityNetwork,
    weaker: VelocityNetwork,
    z: Latents,
    t: PerSample,
    labels: Labels,
    scale: Scalar,
    channels: int = 0,
) -> Latents:
    """`v_w + scale (v_c - v_w)` at z `(B,h,w,d)`, t `(B,)`: one call of each network on B rows.
    `channels` as in `extrapolated`.

    Karras et al. 2024, "Guiding a diffusion model with a bad version of itself".
    """
    v = network(z, t, labels).astype(jnp.float32)
    v_weak = weaker(z, t, labels).astype(jnp.float32)
    return extrapolated(v, v_weak, scale, channels)
