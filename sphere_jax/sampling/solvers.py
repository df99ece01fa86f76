"""Step rules for `dz/dt = v(z, t)` in any space of `geometry.spaces`.

A rule is `(velocity, space, z, t, t_next) -> z` with `velocity(z, t)` and t a scalar; it moves with
`space.step`, so the same lines are Euler or exponential-map Euler. Its attribute `evaluations` is
the number of velocities that one step takes. A velocity found elsewhere on a sphere is brought
here by parallel transport, which keeps its length, so that each rule is exact on a geodesic.

`multistep` also reads the step before: it is `(velocity, space, z, t, t_next, past) -> (z, past)`.
`begin` and `advance` run any rule on a state `(z, past)`.
"""

import jax.numpy as jnp


def _evaluations(n):
    def mark(rule):
        rule.evaluations = n
        return rule

    return mark


@_evaluations(1)
def euler(velocity, space, z, t, t_next):
    """Order 1: `Exp_z(dt v)`."""
    return space.step(z, velocity(z, t), t_next - t)


@_evaluations(2)
def heun(velocity, space, z, t, t_next):
    """Order 2: the mean of the velocities at both ends of the Euler step."""
    start = velocity(z, t)
    ahead = space.step(z, start, t_next - t)
    end = space.transport(ahead, z, velocity(ahead, t_next))
    return space.step(z, 0.5 * (start + end), t_next - t)


@_evaluations(2)
def midpoint(velocity, space, z, t, t_next):
    """Order 2: the velocity half an Euler step ahead."""
    half = 0.5 * (t_next - t)
    middle = space.step(z, velocity(z, t), half)
    return space.step(z, space.transport(middle, z, velocity(middle, t + half)), t_next - t)


@_evaluations(1)
def multistep(velocity, space, z, t, t_next, past):
    """Order 2 for one velocity a step: Adams-Bashforth with steps of any lengths.

    The velocity goes on changing as it did over the last step: `v + h / (2 h') (v - G v')`, with
    `past = (z', v', h')` of that step and G the transport from z' to z.
    """
    z_before, v_before, h_before = past
    h, v = t_next - t, velocity(z, t)
    change = space.tangent(z, v) - space.transport(z_before, z, v_before)
    return space.step(z, v + 0.5 * (h / h_before) * change, h), (z, v, h)


SOLVERS = {rule.__name__: rule for rule in (euler, heun, midpoint, multistep)}


def begin(rule, z):
    """The state before the first step. An infinitely long step before it makes that one Euler's."""
    return z, ((z, jnp.zeros_like(z), jnp.float32(-jnp.inf)) if rule is multistep else ())


def advance(rule, velocity, space, state, t, t_next):
    """One step of any rule: `(z, past)` at t to `(z, past)` at t_next."""
    z, past = state
    if rule is multistep:
        return multistep(velocity, space, z, t, t_next, past)
    return rule(velocity, space, z, t, t_next), past
