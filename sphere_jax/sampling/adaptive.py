"""Dormand-Prince 5(4) with steps of adaptive size, by the optional package diffrax.

Each sample has a step size of its own, so that a sample does not depend on its batch. SiT's dopri5
(torchdiffeq) has one for the whole batch; for a batch of one image the two are the same rule.
"""

import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import Latents, PerSample

MAX_STEPS = 4096  # of one sample
EACH = 6  # evaluations of a step; the seventh stage is the first of the next

RowVelocity = Callable[[Latents, PerSample, Float32[Array, "1"]], Latents]


def require_diffrax() -> None:
    """Raises UserError if the package is not installed."""
    if importlib.util.find_spec("diffrax") is None:
        raise UserError(
            "The solver 'dopri5' needs the package diffrax: pip install 'sphere_jax[adaptive]', or "
            "choose another config.sampler.solver."
        )


def dopri5(
    velocity: Callable,
    seen: Callable,
    z: Latents,
    start: float,
    stop: float,
    recorded: Float32[np.ndarray, " times"],
    rtol: float,
    atol: float,
) -> tuple[Latents, Float32[Array, "batch times ..."] | None, PerSample]:
    """`(z (B,h,w,d) at stop, seen (B, times, ...), evaluations (B,))` from z at `start` > `stop`.

    `velocity(z, t, i)` is that of rows z `(1,h,w,d)` at t `()`, i `()` being their place in the
    batch; `seen(z)` is recorded at the times `recorded`, falling, on the interpolated path; None
    where there are none.
    Evaluations are NaN where a sample needed more than MAX_STEPS steps.

    Raises:
        UserError: the package diffrax is not installed.
    """
    require_diffrax()
    import diffrax

    def field(t, y, i):
        return velocity(y[None], t, i)[0]

    def record(t, y, i):
        return seen(y[None])

    at_end = diffrax.SubSaveAt(t1=True)
    along = diffrax.SubSaveAt(ts=jnp.asarray(recorded), fn=record) if len(recorded) else None

    def solve(y, i):
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            start,
            stop,
            None,  # the first step size is chosen as Hairer does
            y,
            i,
            saveat=diffrax.SaveAt(subs=[at_end, along] if along else [at_end]),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=MAX_STEPS,
            throw=False,
        )
        finished = found.result == diffrax.RESULTS.successful
        count = 1.0 + EACH * found.stats["num_steps"]
        passed = found.ys[1] if along else None
        return found.ys[0][0], passed, jnp.where(finished, count, jnp.nan)

    return jax.vmap(solve)(z, jnp.arange(len(z)))
