"""Refinement of a decoded image by a few flow steps on pixels.

docs/systems/flow_sphere.md#sampling. Time is 1 at the start, `rho n + (1 - rho) x_0`, and 0 at the
image.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from sphere_jax.common.shapes import AnyArray, Images, Labels, Scalar
from sphere_jax.geometry.spaces import Euclidean
from sphere_jax.sampling.guidance import guided
from sphere_jax.sampling.solvers import heun

CLAMP = 0.05  # the least time that a velocity is divided by


@dataclasses.dataclass(frozen=True)
class Refinement:
    """Settings of the sampler: `steps` of the flow (0: none), guidance `scale` (1 is off), part of
    noise `rho` in its start, and `strength` of the noise in an edit."""

    steps: int
    scale: float = 1.0
    rho: float = 0.75
    strength: float = 0.25

    decode_radius = 0.0

    def __str__(self):
        words = f"{self.refinements} evaluations of the refiner and 1 of the decoder"
        guidance = f", guidance {self.scale:g}" if self.scale != 1.0 else ""
        return f"{self.steps} steps from {self.rho:g} noise ({words}){guidance}"

    def with_scale(self, scale: float) -> "Refinement":
        return dataclasses.replace(self, scale=scale)

    @property
    def refinements(self) -> int:
        """Evaluations of the refiner: two for a Heun step and one at the end, 19 for 10 steps."""
        calls = max(2 * self.steps - 1, 0)
        return calls * (1 if self.scale == 1.0 else 2)

    @property
    def evaluations(self) -> int:
        """NFE: the refiner's, and one decode."""
        return self.refinements + 1


def mix(rough: Images, noise: Images, rho: float) -> Images:
    """The start of the flow, `rho n + (1 - rho) x_0`."""
    return rho * noise + (1.0 - rho) * rough


def refine_steps(
    settings: Refinement,
    predict: Callable[..., Images],
    rough: Images,
    noise: Images,
    context: tuple[AnyArray, ...],
    labels: Labels,
    null_label: int,
    scale: Scalar,
    states: bool = False,
) -> Images | Float32[AnyArray, "points batch height width channels"]:
    """Images (B, H, W, C), not clipped: N - 1 Heun steps of length 1 / N from the mix of `rough`
    and `noise`, then the prediction; `rough` itself for 0 steps.

    Args:
      predict: `(x_t, t (B,), *context, labels) -> x_hat`, clean images. The velocity is
        `(x_t - x_hat) / max(t, 0.05)`.
      scale: of guidance, where `settings` turn it on.
      states: return all (N + 1, B, H, W, C) instead: the mix, x after every step, the prediction.
    """
    if settings.steps == 0:
        return rough[None] if states else rough

    def x_hat(x, t):
        inputs = (x, jnp.full(len(x), t, jnp.float32), *context)
        if settings.scale == 1.0:
            return predict(*inputs, labels)
        return guided(predict, inputs, labels, null_label, scale)

    def velocity(x, t):
        return (x - x_hat(x, t)) / jnp.maximum(t, CLAMP)

    def step(x, times):
        x = heun(velocity, Euclidean(), x, *times)
        return x, x if states else None

    x = mix(rough, noise, settings.rho)
    passed = [x[None]]
    times = np.linspace(1.0, 0.0, settings.steps + 1, dtype=np.float32)
    if settings.steps > 1:
        x, along = jax.lax.scan(step, x, (times[:-2], times[1:-1]))
        passed.append(along)
    last = x_hat(x, times[-2])
    return jnp.concatenate([*passed, last[None]]) if states else last
