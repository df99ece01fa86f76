"""From noise to latents: the time grid, the guided and unguided segments of it, the solver."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from sphere_jax.common.shapes import Labels, Latents, Scalar
from sphere_jax.geometry.spaces import Space
from sphere_jax.sampling.guidance import (
    Guidance,
    VelocityNetwork,
    auto_guided_velocity,
    guided_velocity,
    segments,
)
from sphere_jax.sampling.solvers import SOLVERS, advance, initial_state
from sphere_jax.sampling.times import time_grid


@dataclass(frozen=True)
class Sampler:
    """Settings of a solver; hashable, so that it can be a static argument of a jitted function.

    solver: "euler", "heun", "midpoint" or "multistep"; steps: from t = 1 to t_end, which is a time
    before the shift; shift: of the time grid; decode_radius: of the tokens that are decoded, 0 for
    the radius of the space.

    Raises:
        ValueError: for values out of range.
    """

    solver: str = "euler"
    steps: int = 50
    shift: float = 1.0
    t_end: float = 0.0
    guidance: Guidance = field(default_factory=Guidance)
    decode_radius: float = 0.0

    def __post_init__(self):
        if self.solver not in SOLVERS:
            raise ValueError(f"solver is one of {', '.join(SOLVERS)}, not {self.solver!r}")
        self.times()

    def __str__(self):
        kind = "auto-guidance" if self.guidance.auto else "guidance"
        channels = self.guidance.channels
        where = f" of {channels} channels" if channels and self.scale != 1.0 else ""
        return f"{self.solver} {self.steps} steps, {kind} {self.scale:g}{where}"

    @property
    def scale(self) -> float:
        """The guidance scale; 1 is off."""
        return self.guidance.scale

    def with_scale(self, scale: float) -> "Sampler":
        """A copy with another guidance scale."""
        return replace(self, guidance=replace(self.guidance, scale=scale))

    @property
    def evaluations(self) -> int:
        """NFE: network evaluations per image; a guided evaluation counts 2."""
        return nfe(self)

    def times(self) -> Float32[np.ndarray, " {self.steps}+1"]:
        """Times `(steps + 1,)`, from 1 to the shifted t_end."""
        return time_grid(self.steps, self.shift, self.t_end)


def nfe(settings: Sampler) -> int:
    """Network evaluations per image: a guided evaluation counts 2."""
    each = SOLVERS[settings.solver].evaluations
    runs = segments(settings.times(), settings.guidance)
    return sum((stop - start) * each * (1 + guided) for start, stop, guided in runs)


def sample(
    network: VelocityNetwork,
    space: Space,
    noise: Latents,
    labels: Labels,
    null_label: int,
    settings: Sampler,
    scale: Scalar | None = None,
    *,
    weaker: VelocityNetwork | None = None,
    trajectory: bool = False,
) -> Latents | tuple[Latents, Float32[Array, " times"]]:
    """Latents `(B,h,w,d)`, float32, from standard Gaussian noise of the same shape.

    Jit a function that closes over the network, the space and the settings. In
    `ProjectedEuclidean` space the result lies off the sphere: `space.project` it before decoding.

    Args:
        network: `(z (B,h,w,d), t (B,), labels) -> v (B,h,w,d)`.
        labels: int32 `(B,)`, or weights of a mixture `(B, K + 1)`.
        scale: replaces `settings.guidance.scale` where guidance acts, and may be traced. Whether
            guidance acts is static, so it must be on in the settings.
        weaker: network of auto-guidance, for settings with `guidance.auto`.
        trajectory: also return the mean row norm `(steps + 1,)` from the prior on, in units of the
            radius of the sphere (`sqrt(d)` in Euclidean space).

    Raises:
        ValueError: for a scale where guidance is off, or where only one of `weaker` and
            `settings.guidance.auto` is given.
    """
    guidance, solver = settings.guidance, SOLVERS[settings.solver]
    if scale is not None and guidance.scale == 1.0:
        raise ValueError("a scale needs guidance in the settings, which say scale 1 (off)")
    if bool(guidance.auto) != (weaker is not None):
        raise ValueError("guidance.auto in the settings and a weaker network go together")
    scale = guidance.scale if scale is None else scale

    def plain(z, t):
        return network(z, jnp.full(z.shape[:1], t), labels).astype(jnp.float32)

    def guided(z, t):
        t = jnp.full(z.shape[:1], t)
        if weaker is not None:
            return auto_guided_velocity(network, weaker, z, t, labels, scale, guidance.channels)
        return guided_velocity(network, z, t, labels, null_label, scale, guidance.channels)

    def radius(z):
        return jnp.mean(space.relative_radius(z)) if trajectory else None

    times = settings.times()
    z = space.prior(noise)
    radii = [radius(z)[None]] if trajectory else []
    for start, stop, is_guided in segments(times, guidance):
        velocity = guided if is_guided else plain

        def step(state, ends, velocity=velocity):
            state = advance(solver, velocity, space, state, *ends)
            return state, radius(state[0])

        # Velocities jump where guidance starts or stops. A multistep rule restarts there:
        # extrapolating over the jump would lose its order of convergence.
        ends = times[start:stop], times[start + 1 : stop + 1]
        (z, _), along = jax.lax.scan(step, initial_state(solver, z), ends)
        radii.append(along)
    return (z, jnp.concatenate(radii)) if trajectory else z
