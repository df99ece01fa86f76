"""From noise to latents: the time grid, the guided and unguided segments of it, the solver."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from sphere_jax.common.shapes import Keys, Labels, Latents, Scalar
from sphere_jax.geometry.spaces import Euclidean, Space
from sphere_jax.sampling.adaptive import dopri5
from sphere_jax.sampling.guidance import (
    Guidance,
    VelocityNetwork,
    auto_guided_velocity,
    guided_velocity,
    intervals,
    segments,
)
from sphere_jax.sampling.solvers import SOLVERS, advance, initial_state, restarted
from sphere_jax.sampling.stochastic import euler_maruyama
from sphere_jax.sampling.times import sde_time_grid, time_grid

ADAPTIVE = "dopri5"
STOCHASTIC = euler_maruyama.__name__
RULES = SOLVERS | {STOCHASTIC: euler_maruyama}


@dataclass(frozen=True)
class Sampler:
    """Settings of a solver; hashable, so that it can be a static argument of a jitted function.

    solver: "euler", "heun", "midpoint", "multistep", "euler_maruyama" (an SDE; linear paths from
    Gaussian noise only) or "dopri5" (adaptive; Euclidean space only); steps: from t = 1 to t_end,
    which is a time before the shift, for dopri5 the points at which the radius is recorded; shift:
    of the time grid; decode_radius: of the tokens that are decoded, 0 for the radius of the space;
    last_step: length of the last step of euler_maruyama; rtol, atol: tolerances of dopri5.

    Raises:
        ValueError: for values out of range.
    """

    solver: str = "euler"
    steps: int = 50
    shift: float = 1.0
    t_end: float = 0.0
    guidance: Guidance = field(default_factory=Guidance)
    decode_radius: float = 0.0
    last_step: float = 0.04
    rtol: float = 1e-3
    atol: float = 1e-6

    def __post_init__(self):
        if self.solver not in (*RULES, ADAPTIVE):
            known = ", ".join((*RULES, ADAPTIVE))
            raise ValueError(f"solver is one of {known}, not {self.solver!r}")
        if self.solver == STOCHASTIC and self.t_end:
            raise ValueError(f"{STOCHASTIC} ends at t = 0, not at {self.t_end}")
        self.times()

    def __str__(self):
        kind = "auto-guidance" if self.guidance.auto else "guidance"
        channels = self.guidance.channels
        where = f" of {channels} channels" if channels and self.scale != 1.0 else ""
        adaptive = f"rtol {self.rtol:g}, atol {self.atol:g}"
        how = adaptive if self.solver == ADAPTIVE else f"{self.steps} steps"
        return f"{self.solver} {how}, {kind} {self.scale:g}{where}"

    @property
    def scale(self) -> float:
        """The guidance scale; 1 is off."""
        return self.guidance.scale

    def with_scale(self, scale: float) -> "Sampler":
        """A copy with another guidance scale."""
        return replace(self, guidance=replace(self.guidance, scale=scale))

    @property
    def evaluations(self) -> int | None:
        """NFE: network evaluations per image; a guided evaluation counts 2. None for an adaptive
        solver, whose evaluations are counted as they are made."""
        return nfe(self)

    def times(self) -> Float32[np.ndarray, " {self.steps}+1"]:
        """Times `(steps + 1,)`, from 1 to the shifted t_end."""
        if self.solver == STOCHASTIC:
            return sde_time_grid(self.steps, self.shift, self.last_step)
        return time_grid(self.steps, self.shift, self.t_end)


def nfe(settings: Sampler) -> int | None:
    """Network evaluations per image, a guided evaluation counts 2; None for an adaptive solver."""
    if settings.solver == ADAPTIVE:
        return None
    each = RULES[settings.solver].evaluations
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
    keys: Keys | None = None,
    trajectory: bool = False,
    states: bool = False,
) -> Latents | tuple[Latents, dict[str, Float32[Array, "rows ..."]]]:
    """Latents `(B,h,w,d)`, float32, from standard Gaussian noise of the same shape.

    Jit a function that closes over the network, the space and the settings. In
    `ProjectedEuclidean` space the result lies off the sphere: `space.project` it before decoding.

    Args:
        network: `(z (B,h,w,d), t (B,), labels) -> v (B,h,w,d)`.
        labels: int32 `(B,)`, or weights of a mixture `(B, K + 1)`.
        scale: replaces `settings.guidance.scale` where guidance acts, and may be traced. Whether
            guidance acts is static, so it must be on in the settings.
        weaker: network of auto-guidance, for settings with `guidance.auto`.
        keys: of the samples (B,), for the noise of an SDE.
        trajectory: also return `radius`, the mean row norm `(steps + 1,)` from the prior on, in
            units of the radius of the sphere (`sqrt(d)` in Euclidean space); and of an adaptive
            solver `evaluations` (B,), NaN for a sample that took too many steps.
        states: instead of the radius return `states`, the latents `(steps + 1,B,h,w,d)` themselves.

    Raises:
        ValueError: for a scale where guidance is off, where only one of `weaker` and
            `settings.guidance.auto` is given, for a space that the solver cannot solve in, or an
            SDE without keys.
    """
    guidance = settings.guidance
    if reason := unfit_solver(settings.solver, space == Euclidean()):
        raise ValueError(f"the solver {settings.solver} {reason}")
    if settings.solver == STOCHASTIC and keys is None:
        raise ValueError("an SDE needs keys of the samples")
    if scale is not None and guidance.scale == 1.0:
        raise ValueError("a scale needs guidance in the settings, which say scale 1 (off)")
    if bool(guidance.auto) != (weaker is not None):
        raise ValueError("guidance.auto in the settings and a weaker network go together")
    scale = guidance.scale if scale is None else scale

    def plain(z, t, labels=labels):
        return network(z, jnp.full(z.shape[:1], t), labels).astype(jnp.float32)

    def guided(z, t, labels=labels):
        t = jnp.full(z.shape[:1], t)
        if weaker is not None:
            return auto_guided_velocity(network, weaker, z, t, labels, scale, guidance.channels)
        return guided_velocity(network, z, t, labels, null_label, scale, guidance.channels)

    def seen(z):
        return z if states else jnp.mean(space.relative_radius(z))

    name = "states" if states else "radius"
    z = space.prior(noise)
    if settings.solver == ADAPTIVE:
        z, passed, evaluations = _adaptive(guided, plain, seen, z, labels, settings)
        along = {name: passed, "evaluations": evaluations}
        return (z, along) if trajectory or states else z

    times, solver = settings.times(), RULES[settings.solver]
    begun = z, (keys, jnp.int32(0))  # an SDE's noise is of (key, number of the step)
    state = begun if settings.solver == STOCHASTIC else initial_state(solver, z)
    passed = [seen(z)[None]] if trajectory or states else []
    for start, stop, is_guided in segments(times, guidance):
        velocity = guided if is_guided else plain

        def step(state, ends, velocity=velocity):
            state = advance(solver, velocity, space, state, *ends)
            return state, seen(state[0]) if trajectory or states else None

        # Velocities jump where guidance starts or stops. A multistep rule restarts there:
        # extrapolating over the jump would lose its order of convergence.
        ends = times[start:stop], times[start + 1 : stop + 1]
        state, along = jax.lax.scan(step, restarted(solver, state), ends)
        passed.append(along)
    return (state[0], {name: jnp.concatenate(passed)}) if trajectory or states else state[0]


def unfit_solver(solver: str, euclidean: bool) -> str:
    """Why a solver cannot be used in a space, `Euclidean` or not, as the end of a sentence; "" if
    it can."""
    if solver in (ADAPTIVE, STOCHASTIC) and not euclidean:
        return "solves linear paths from Gaussian noise alone, the Euclidean baseline"
    return ""


def _adaptive(guided, plain, seen, z, labels, settings: Sampler):
    """Latents at the end, what is `seen` on the way, and evaluations. Velocities jump where
    guidance starts or stops: each interval is solved by itself."""
    times, counts, passed = settings.times(), 0.0, []
    for start, stop, is_guided in intervals(1.0, float(times[-1]), settings.guidance):

        def velocity(z, t, i, evaluate=guided if is_guided else plain):
            return evaluate(z, t, jax.lax.dynamic_slice_in_dim(labels, i, 1))

        recorded = times[:-1][(times[:-1] <= start) & (times[:-1] > stop)]
        rtol, atol = settings.rtol, settings.atol
        z, found, made = dopri5(velocity, seen, z, start, stop, recorded, rtol, atol)
        if found is not None:
            of_one = found.ndim == 2  # a number of each sample; else its latents (B,times,1,h,w,d)
            passed.append(found.mean(0) if of_one else jnp.swapaxes(found[:, :, 0], 0, 1))
        counts = counts + made * (1 + is_guided)
    return z, jnp.concatenate([*passed, seen(z)[None]]), counts
