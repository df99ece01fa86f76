"""From noise to latents: the grid of times, the guided and unguided runs of steps, the solver."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from sphere_jax.sampling.guidance import Guidance, guided_velocity, segments
from sphere_jax.sampling.solvers import SOLVERS
from sphere_jax.sampling.times import time_grid


@dataclass(frozen=True)
class Sampler:
    """Settings of one way to sample; hashable, so it can be static under jit.

    solver: "euler", "heun" or "midpoint"; steps: from t = 1 to t_end; shift: of the time grid.
    Raises ValueError for values out of range.
    """

    solver: str = "euler"
    steps: int = 50
    shift: float = 1.0
    t_end: float = 0.0
    guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self):
        if self.solver not in SOLVERS:
            raise ValueError(f"solver is one of {', '.join(SOLVERS)}, not {self.solver!r}")
        self.times()

    def __str__(self):
        return f"{self.solver} {self.steps} steps, guidance {self.scale:g}"

    @property
    def scale(self) -> float:
        """The guidance scale; 1 is off."""
        return self.guidance.scale

    @property
    def evaluations(self) -> int:
        """NFE: network evaluations per image; a guided evaluation counts 2."""
        return nfe(self)

    def times(self):
        """The `(steps + 1,)` numpy float32 times, from 1 to t_end."""
        return time_grid(self.steps, self.shift, self.t_end)


def nfe(settings):
    """Network evaluations per image: a guided evaluation counts 2."""
    each = SOLVERS[settings.solver].evaluations
    runs = segments(settings.times(), settings.guidance)
    return sum((stop - start) * each * (1 + guided) for start, stop, guided in runs)


def sample(network, space, noise, labels, null_label, settings, scale=None, *, trajectory=False):
    """Latents `(B,h,w,d)`, float32, from standard Gaussian noise of the same shape.

    network: `(z (B,h,w,d), t (B,), labels (B,)) -> v`; labels: int32 `(B,)`. Jit it with network,
    space and settings closed over. `scale`, which may be traced, replaces `settings.guidance.scale`
    where guidance acts; whether it acts at all is static, so guidance must be on in the settings
    (ValueError otherwise). With trajectory=True returns `(z, radius)`, radius `(steps + 1,)` the
    mean row norm over the sphere's radius (`sqrt(d)` in Euclidean space), from the prior on.

    On `ProjectedEuclidean` the end lies off the sphere: `space.project` it before decoding.
    """
    guidance, solver = settings.guidance, SOLVERS[settings.solver]
    if scale is not None and guidance.scale == 1.0:
        raise ValueError("a scale needs guidance in the settings, which say scale 1 (off)")
    scale = guidance.scale if scale is None else scale

    def plain(z, t):
        return network(z, jnp.full(z.shape[:1], t), labels).astype(jnp.float32)

    def guided(z, t):
        t = jnp.full(z.shape[:1], t)
        return guided_velocity(network, z, t, labels, null_label, scale)

    def radius(z):
        return jnp.mean(space.relative_radius(z)) if trajectory else None

    times = settings.times()
    z = space.prior(noise)
    radii = [radius(z)[None]] if trajectory else []
    for start, stop, is_guided in segments(times, guidance):
        velocity = guided if is_guided else plain

        def step(z, ends, velocity=velocity):
            z = solver(velocity, space, z, *ends)
            return z, radius(z)

        z, along = jax.lax.scan(step, z, (times[start:stop], times[start + 1 : stop + 1]))
        radii.append(along)
    return (z, jnp.concatenate(radii)) if trajectory else z
