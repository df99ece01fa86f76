"""Guidance, and where it applies: classifier-free `v_u + w (v_c - v_u)` in one batched call, or
auto-guidance `v_w + w (v_c - v_w)` away from a weaker network that is given the same label.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

ROUNDING = 1e-6


@dataclass(frozen=True)
class Guidance:
    """Scale w and the interval of times [low, high] in which it acts; w = 1 is off.

    auto: names the weaker network of auto-guidance; "" is classifier-free guidance.
    """

    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0
    auto: str = ""

    def __post_init__(self):
        if not 0.0 <= self.low <= self.high <= 1.0:
            raise ValueError(
                f"guidance needs 0 <= low <= high <= 1, not {self.low} and {self.high}"
            )


def segments(times, guidance):
    """Runs of equal steps `(start, stop, guided)`, from the numpy times of a grid.

    The step from `times[i]` to `times[i + 1]` is guided when its start lies in the interval and
    the scale is not 1; all evaluations of one step are guided alike. Times are float32, the ends
    of the interval are not: a start within ROUNDING of an end is in it.
    """
    low, high = guidance.low - ROUNDING, guidance.high + ROUNDING
    guided = [guidance.scale != 1.0 and low <= float(t) <= high for t in times[:-1]]
    edges = [i for i in range(1, len(guided)) if guided[i] != guided[i - 1]]
    bounds = [0, *edges, len(guided)]
    return [(a, b, guided[a]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def guided(network, inputs, labels, null_label, scale):
    """`y_u + scale (y_c - y_u)` with `y = network(*inputs, labels)`: one call on 2B rows.

    Labels are (B,) or mixtures (B, K + 1). Rows 2i and 2i + 1 are sample i with its label and
    without, so that a batch split over devices stays where it is (halves end to end would move it).
    """

    def pair(a, b):
        return jnp.stack([a, b], axis=1).reshape((2 * a.shape[0], *a.shape[1:]))

    if labels.ndim == 2:
        null = jnp.broadcast_to(jax.nn.one_hot(null_label, labels.shape[1])[None], labels.shape)
    else:
        null = jnp.full_like(labels, null_label)
    y = network(*(pair(x, x) for x in inputs), pair(labels, null)).astype(jnp.float32)
    y = y.reshape(labels.shape[0], 2, *y.shape[1:])
    y_c, y_u = y[:, 0], y[:, 1]
    return y_u + scale * (y_c - y_u)


def guided_velocity(network, z, t, labels, null_label, scale):
    """`v_u + scale (v_c - v_u)` at z `(B,h,w,d)`, t `(B,)`: one call of the network on 2B rows."""
    return guided(network, (z, t), labels, null_label, scale)


def auto_guided_velocity(network, weaker, z, t, labels, scale):
    """`v_w + scale (v_c - v_w)`: one call each of two networks, on B rows (Karras et al. 2024,
    "Guiding a diffusion model with a bad version of itself").
    """
    v = network(z, t, labels).astype(jnp.float32)
    v_weak = weaker(z, t, labels).astype(jnp.float32)
    return v_weak + scale * (v - v_weak)
