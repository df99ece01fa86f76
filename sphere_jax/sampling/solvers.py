"""Step rules for `dz/dt = v(z, t)` in any space of `geometry.spaces`.

A rule is `(velocity, space, z, t, t_next) -> z` with `velocity(z, t)` and t a scalar; it moves with
`space.step`, so the same lines are Euler or exponential-map Euler. Its attribute `evaluations` is
the number of velocities that one step takes. A velocity found elsewhere on a sphere is brought
back by parallel transport, which keeps its length, so that each rule is exact on a geodesic.
"""


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


SOLVERS = {rule.__name__: rule for rule in (euler, heun, midpoint)}
