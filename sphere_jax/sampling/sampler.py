"""From noise to latents: the grid of times, the guided and unguided runs of steps, the solver."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from sphere_jax.sampling.guidance import (
    Guidance,
    auto_guided_velocity,
    guided_velocity,
    segments,
)
from sphere_jax.sampling.solvers import SOLVERS, advance, begin
from sphere_jax.sampling.times import time_grid


@dataclass(frozen=True)
class Sampler:
    """Settings of one way to sample; hashable, so it can be static under jit.

    solver: "euler", "heun", "midpoint" or "multistep"; steps: from t = 1 to t_end, which is a time
    before the shift; shift: of the time grid; decode_radius: of the tokens that are decoded, 0 for
    the space's own.
    Raises ValueError for values out of range.
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
        return f"{self.solver} {self.steps} steps, {kind} {self.scale:g}"

    @property
    def scale(self) -> float:
        """The guidance scale; 1 is off."""
        return self.guidance.scale

    def with_scale(self, scale: float) -> "Sampler":
        """The same with another guidance scale."""
        return replace(self, guidance=replace(self.guidance, scale=scale))

    @property
    def evaluations(self) -> int:
        """NFE: network evaluations per image; a guided evaluation counts 2."""
        return nfe(self)

    def times(self):
        """The `(steps + 1,)` numpy float32 times, from 1 to the shifted t_end."""
        return time_grid(self.steps, self.shift, self.t_end)


def nfe(settings):
    """Network evaluations per image: a guided evaluation counts 2."""
    each = SOLVERS[settings.solver].evaluations
    runs = segments(settings.times(), settings.guidance)
    return sum((stop - start) * each * (1 + guided) for start, stop, guided in runs)


def sample(
    network,
    space,
    noise,
    labels,
    null_label,
    settings,
    scale=None,
    *,
    weaker=None,
    trajectory=False,
):
    """Latents `(B,h,w,d)`, float32, from standard Gaussian noise of the same shape.

    network: `(z (B,h,w,d), t (B,), labels (B,)) -> v`; labels: int32 `(B,)`. Jit it with network,
    space and settings closed over. `scale`, which may be traced, replaces `settings.guidance.scale`
    where guidance acts; whether it acts at all is static, so guidance must be on in the settings
    (ValueError otherwise). `weaker`, a network with the same signature, takes the place of no label
    in guidance, and must be given where `settings.guidance.auto` names one (ValueError otherwise).
    With trajectory=True returns `(z, radius)`, radius `(steps + 1,)` the mean row norm over the
    sphere's radius (`sqrt(d)` in Euclidean space), from the prior on.

    On `ProjectedEuclidean` the end lies off the sphere: `space.project` it before decoding.
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
            return auto_guided_velocity(network, weaker, z, t, labels, scale)
        return guided_velocity(network, z, t, labels, null_label, scale)

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

        # Velocities jump where guidance starts or stops: a multistep rule begins anew there, since
        # going on with the last change would cost it its order.
        ends = times[start:stop], times[start + 1 : stop + 1]
        (z, _), along = jax.lax.scan(step, begin(solver, z), ends)
        radii.append(along)
    return (z, jnp.concatenate(radii)) if trajectory else z
