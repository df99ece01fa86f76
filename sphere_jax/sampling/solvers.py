"""Step rules for `dz/dt = v(z, t)` in any space of `geometry.spaces`.

A rule is `(velocity, space, z, t, t_next) -> z` with z `(B,h,w,d)`, t `()` and `velocity(z, t)`. It
moves z by `space.step`, so the same lines are Euler or exponential-map Euler. Its attribute
`evaluations` is the number of velocities in one step. A velocity at another point of a sphere is
parallel-transported to z, which preserves its length, so that each rule is exact on a geodesic.

`multistep` also uses the step before: it is `(velocity, space, z, t, t_next, past) -> (z, past)`.
So is `stochastic.euler_maruyama`, a step of an SDE, whose past is where its noise comes from.
`initial_state`, `restarted` and `advance` run any rule on a state `(z, past)`.
"""

from collections.abc import Callable

import jax.numpy as jnp

from sphere_jax.common.shapes import Latents, Scalar
from sphere_jax.geometry.spaces import Space

Velocity = Callable[[Latents, Scalar], Latents]
Rule = Callable[..., Latents | tuple[Latents, tuple]]  # one of those below
Past = tuple[Latents, Latents, Scalar]  # z, velocity and length of the step before
State = tuple[Latents, tuple]


def rule_of(evaluations: int, remembers: bool = False) -> Callable[[Rule], Rule]:
    """Marks a rule with the velocities in one of its steps, and whether it takes a past."""

    def mark(rule):
        rule.evaluations, rule.remembers = evaluations, remembers
        return rule

    return mark


@rule_of(1)
def euler(velocity: Velocity, space: Space, z: Latents, t: Scalar, t_next: Scalar) -> Latents:
    """Order 1: `Exp_z(dt v)`."""
    return space.step(z, velocity(z, t), t_next - t)


@rule_of(2)
def heun(velocity: Velocity, space: Space, z: Latents, t: Scalar, t_next: Scalar) -> Latents:
    """Order 2: the mean of the velocities at both ends of the Euler step."""
    start = velocity(z, t)
    ahead = space.step(z, start, t_next - t)
    end = space.transport(ahead, z, velocity(ahead, t_next))
    return space.step(z, 0.5 * (start + end), t_next - t)


@rule_of(2)
def midpoint(velocity: Velocity, space: Space, z: Latents, t: Scalar, t_next: Scalar) -> Latents:
    """Order 2: the velocity half an Euler step ahead."""
    half = 0.5 * (t_next - t)
    middle = space.step(z, velocity(z, t), half)
    return space.step(z, space.transport(middle, z, velocity(middle, t + half)), t_next - t)


@rule_of(1, remembers=True)
def multistep(
    velocity: Velocity, space: Space, z: Latents, t: Scalar, t_next: Scalar, past: Past
) -> tuple[Latents, Past]:
    """Order 2 with one velocity a step: Adams-Bashforth for steps of varying length.

    The velocity is extrapolated from its change over the last step: `v + h / (2 h') (v - G v')`,
    with `past = (z', v', h')` of that step and G the transport from z' to z.
    """
    z_before, v_before, h_before = past
    h, v = t_next - t, velocity(z, t)
    change = space.tangent(z, v) - space.transport(z_before, z, v_before)
    return space.step(z, v + 0.5 * (h / h_before) * change, h), (z, v, h)


SOLVERS = {rule.__name__: rule for rule in (euler, heun, midpoint, multistep)}


def initial_state(rule: Rule, z: Latents) -> State:
    """`(z, past)` of a rule of this file before the first step."""
    return restarted(rule, (z, ()))


def restarted(rule: Rule, state: State) -> State:
    """The state where velocities jump: a multistep rule forgets its past, whose infinite length
    makes the next step an Euler step."""
    z, _ = state
    if rule is multistep:
        return z, (z, jnp.zeros_like(z), jnp.float32(-jnp.inf))
    return state


def advance(
    rule: Rule, velocity: Velocity, space: Space, state: State, t: Scalar, t_next: Scalar
) -> State:
    """One step of any rule: `(z, past)` at t to `(z, past)` at t_next."""
    z, past = state
    if rule.remembers:
        return rule(velocity, space, z, t, t_next, past)
    return rule(velocity, space, z, t, t_next), past
