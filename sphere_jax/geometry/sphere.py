"""Geometry of the unit sphere, as functions of arrays along their last axis
(docs/systems/shared.md#geometry).

`Vectors` are `(..., d)`, of unit norm unless a radius is given. `Scalars` (angles, times) are `()`
or have the leading axes `(...)`, where an axis of size 1 broadcasts. `in_float32` casts every
argument first, so the functions take any real arrays and Python numbers: storing a vector in
bfloat16 already rotates it by 1.7e-3 rad. Every function is finite, and so is its gradient, at
coincident points, at antipodes and at zero vectors.

Antipodes. Many great circles pass through two antipodal points. When `w` lies within `ANTIPODAL` of
`-u`, all of slerp, log and transport use the circle that leaves `u` in the direction
`fixed_tangent(u)`, and take `-u` for its end. For d >= 16 random pairs never reach this case.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from sphere_jax.common.shapes import OneKey

ANTIPODAL = (
    1.4e-3  # rad from the antipode (1 + <u,w> < 1e-6), below which w has no direction from u
)

Vectors = Float32[Array, "*batch d"]
Norms = Float32[Array, "*batch"]  # norms, angles: one for each vector
Scalars = Float32[Array, "*#batch"]  # angles, times: broadcast to one for each vector
Columns = Float32[Array, "*#batch 1"]  # scalars, ready to multiply vectors
Samples = Float32[Array, "batch *rest"]
Function = Callable[..., Float32[Array, "..."]]


def in_float32(function: Function) -> Function:
    """`function` with its arguments, array-like and of any real type, cast to float32 first."""

    @functools.wraps(function)
    def cast(*args, **kwargs):
        args = (jnp.asarray(a, jnp.float32) for a in args)
        return function(*args, **{k: jnp.asarray(a, jnp.float32) for k, a in kwargs.items()})

    return cast


def _column(t: Scalars) -> Scalars | Columns:
    """Scalars `(...)` as `(..., 1)`, ready to multiply vectors; `()` stays."""
    return t if t.ndim == 0 else t[..., None]


# --- norms, products and the two projections onto a sphere -------------------------------------


@in_float32
def dot(u: Vectors, w: Vectors) -> Columns:
    """`<u, w>` as `(..., 1)`: a float32 sum, which no matmul precision setting can lower."""
    return jnp.sum(u * w, axis=-1, keepdims=True)


@in_float32
def safe_norm(x: Vectors) -> Norms:
    """`|x|` as `(...)`; the gradient at x = 0 is 0, not NaN."""
    return jnp.sqrt(jnp.sum(x * x, axis=-1) + 1e-30)


@in_float32
def normalize(x: Vectors, radius: Scalars | Columns | float = 1.0) -> Vectors:
    """Token projection `R x / |x|`, with R `()` or `(..., 1)`; a zero vector stays zero."""
    return radius * x * jax.lax.rsqrt(dot(x, x) + 1e-12)


@in_float32
def spherify(z: Samples, eps: Scalars | float = 1e-6) -> Samples:
    """Global projection of `(B, ...)`: RMS 1 over the L numbers of a sample, radius `sqrt(L)`."""
    axes = tuple(range(1, z.ndim))
    return z * jax.lax.rsqrt(jnp.mean(z * z, axis=axes, keepdims=True) + eps)


def uniform(key: OneKey, shape: tuple[int, ...], radius: float = 1.0) -> Vectors:
    """Uniform points of the sphere of a radius; `shape` is `(..., d)`."""
    return normalize(jax.random.normal(key, shape, jnp.float32), radius)


# --- angles ------------------------------------------------------------------------------------


@in_float32
def sinc(x: Scalars) -> Scalars:
    """`sin(x) / x` of any shape, with a derivative that is accurate to rounding everywhere.

    The derivative of the quotient cancels near zero, so |x| < 1/4 uses a Taylor series, whose
    omitted terms are below 5e-11.
    """
    small = jnp.abs(x) < 0.25
    y, s = jnp.where(small, 1.0, x), jnp.where(small, x * x, 0.0)
    series = 1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0))
    return jnp.where(small, series, jnp.sin(y) / y)


@in_float32
def angle(u: Vectors, w: Vectors) -> Norms:
    """Angle between u and w in [0, pi], as `(...)`: `2 atan2(|u - w|, |u + w|)`.

    Unlike `arccos <u,w>` it is exact to rounding over the whole range and needs no clamp.
    """
    return 2.0 * jnp.arctan2(safe_norm(u - w), safe_norm(u + w))


@in_float32
def distance(u: Vectors, w: Vectors, radius: Scalars | float = 1.0) -> Norms:
    """Geodesic distance `R angle(u, w)` as `(...)`, between the directions u and w."""
    return radius * angle(u, w)


# --- tangent space -----------------------------------------------------------------------------


@in_float32
def radial(u: Vectors, v: Vectors) -> Vectors:
    """Part of v along u: `<u,v> u`."""
    return dot(u, v) * u


@in_float32
def tangent(u: Vectors, v: Vectors) -> Vectors:
    """Part of v tangent at u: `v - <u,v> u`. The second pass removes the rounding of the first."""
    v = v - radial(u, v)
    return v - radial(u, v)


@in_float32
def fixed_tangent(u: Vectors) -> Vectors:
    """The unit tangent at u nearest to the coordinate axis i with the smallest `|u_i|`."""
    axis = jax.nn.one_hot(jnp.argmin(jnp.abs(u), axis=-1), u.shape[-1], dtype=jnp.float32)
    return normalize(axis - radial(u, axis))


def _great_circle(u: Vectors, w: Vectors) -> tuple[Vectors, Columns, Columns]:
    """`(w, angle, rate)`: the path from u to w, run at `rate` times the speed.

    Returns w, its angle to u and 1; for antipodes `fixed_tangent(u)`, a quarter turn and 2.
    """
    theta = angle(u, w)[..., None]
    antipodal = theta > math.pi - ANTIPODAL
    w = jnp.where(antipodal, fixed_tangent(u), w)
    return w, jnp.where(antipodal, math.pi / 2, theta), jnp.where(antipodal, 2.0, 1.0)


@in_float32
def exp(u: Vectors, v: Vectors) -> Vectors:
    """End of the geodesic that leaves u with velocity v (tangent at u): `cos|v| u + sinc|v| v`."""
    n = safe_norm(v)[..., None]
    return normalize(jnp.cos(n) * u + sinc(n) * v)


@in_float32
def retract(u: Vectors, v: Vectors) -> Vectors:
    """`(u + v) / |u + v|`: rotates u by `atan|v|` where `exp` rotates it by `|v|`."""
    return normalize(u + v)


@in_float32
def log(u: Vectors, w: Vectors) -> Vectors:
    """The tangent at u that `exp` maps to w: `(w - cos(th) u) / sinc(th)`, of norm th.

    Computed as the tangent part of `w - u`, which loses no digits between near points.
    """
    w, theta, rate = _great_circle(u, w)
    return rate * tangent(u, w - u) / sinc(theta)


@in_float32
def transport(u: Vectors, w: Vectors, v: Vectors) -> Vectors:
    """Parallel transport of v (tangent at u) along the geodesic to w.

    `v - <w,v>/(1+<u,w>) (u+w)` is the reflection `v - 2 <m,v> m` with m the unit midpoint of u and
    w, so norms are preserved; between antipodes m is the midpoint of the fixed great circle.
    """
    antipodal = angle(u, w)[..., None] > math.pi - ANTIPODAL
    m = normalize(jnp.where(antipodal, fixed_tangent(u), u + w))
    return v - 2.0 * radial(m, v)


# --- paths -------------------------------------------------------------------------------------


@in_float32
def slerp(u: Vectors, w: Vectors, t: Scalars) -> Vectors:
    """Great circle from u (t = 0) to w (t = 1): `[sin((1-t)th) u + sin(t th) w] / sin(th)`.

    No sine is divided by a sine: with `sinc` the formula is the straight line at th = 0.
    """
    w, theta, rate = _great_circle(u, w)
    t = rate * _column(t)
    a, b = (1.0 - t) * sinc((1.0 - t) * theta), t * sinc(t * theta)
    return normalize((a * u + b * w) / sinc(theta))


@in_float32
def slerp_velocity(u: Vectors, w: Vectors, t: Scalars) -> Vectors:
    """`d slerp / dt = [cos(t th) w - cos((1-t)th) u] / sinc(th)`: tangent, of constant norm th."""
    w, theta, rate = _great_circle(u, w)
    t = rate * _column(t)
    return rate * (jnp.cos(t * theta) * w - jnp.cos((1.0 - t) * theta) * u) / sinc(theta)


@in_float32
def nlerp(u: Vectors, w: Vectors, t: Scalars) -> Vectors:
    """The renormalised chord `c / |c|` with `c = (1-t) u + t w`; `slerp` between antipodes."""
    antipodal = angle(u, w)[..., None] > math.pi - ANTIPODAL
    s = _column(t)
    chord = jnp.where(antipodal, u, (1.0 - s) * u + s * w)
    return jnp.where(antipodal, slerp(u, w, t), normalize(chord))


@in_float32
def nlerp_velocity(u: Vectors, w: Vectors, t: Scalars) -> Vectors:
    """`d nlerp / dt`: the tangent part of `w - u` at `c / |c|`, divided by `|c|`."""
    antipodal = angle(u, w)[..., None] > math.pi - ANTIPODAL
    s = _column(t)
    chord = jnp.where(antipodal, u, (1.0 - s) * u + s * w)
    velocity = tangent(normalize(chord), w - u) / safe_norm(chord)[..., None]
    return jnp.where(antipodal, slerp_velocity(u, w, t), velocity)


# --- noise at an angle -------------------------------------------------------------------------


@in_float32
def angular_noise(v: Vectors, e: Vectors, alpha: Scalars) -> Vectors:
    """`f(v + tan(alpha) e)` (B, C, E): v of RMS 1, e ~ N(0, I), alpha in rad, up to 89 degrees.

    The angle to v is alpha to within about `1/sqrt(d)`. Flatten a latent first to act on its
    global sphere; f is `spherify` along the last axis.
    """
    z = v + jnp.tan(_column(alpha)) * e
    return z * jax.lax.rsqrt(dot(z, z) / z.shape[-1] + 1e-6)


@in_float32
def exact_angle_noise(u: Vectors, q: Vectors, a: Scalars) -> Vectors:
    """`cos(a) u + sin(a) q`: at angle a rad from u, for q tangent at u and of its norm."""
    a = _column(a)
    return jnp.cos(a) * u + jnp.sin(a) * q


@in_float32
def rotation_noise(v: Vectors, e: Vectors, a: Scalars) -> Vectors:
    """`cos(a) v + sin(a) f(e)` (F2): v of RMS 1, e ~ N(0, I) not made orthogonal to v, a in rad.

    a = 0 returns v, a = pi/2 returns f(e); between, the squared norm is off by `sin(2a) cos(v,e)`.
    """
    a = _column(a)
    return jnp.cos(a) * v + jnp.sin(a) * normalize(e, math.sqrt(e.shape[-1]))


@in_float32
def rotate_away(z: Vectors, u: Vectors, b: Scalars) -> Vectors:
    """z rotated by b rad away from u, at the radius of z (F2 angle guidance).

    Where z and u are parallel (tangent norm < 1e-6) there is no such direction: z is returned.
    """
    b, direction = _column(b), normalize(z)
    away = -tangent(direction, normalize(u))
    parallel = safe_norm(away)[..., None] < 1e-6
    unit = normalize(jnp.where(parallel, 1.0, away), safe_norm(z)[..., None])
    return jnp.where(parallel, z, jnp.cos(b) * z + jnp.sin(b) * unit)
