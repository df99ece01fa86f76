"""Geometry of the unit sphere, as functions of arrays along their last axis (methods.md G).

Vectors are `(..., d)` and of unit norm unless a radius is named; angles, times and other scalars
are `()` or carry the leading axes `(...)`. Everything runs in float32, whatever comes in: storing
a vector in bfloat16 already turns it by 1.6e-3 rad. Every function is finite, and so is its
gradient, at coincident points, at antipodes and at zero vectors.

Antipodes. Through two antipodal points pass many great circles. When `w` lies within `ANTIPODAL` of
`-u`, the circle that leaves `u` in the direction `fixed_tangent(u)` is taken, and ends at `-u`. All
of slerp, log and transport follow this one circle. For d >= 16 random ends never meet this case.
"""

import functools
import math

import jax
import jax.numpy as jnp

ANTIPODAL = (
    1.4e-3  # rad from the antipode (1 + <u,w> < 1e-6), below which w has no direction from u
)


def in_float32(function):
    """`function` with its arguments cast to float32 first."""

    @functools.wraps(function)
    def cast(*args, **kwargs):
        args = (jnp.asarray(a, jnp.float32) for a in args)
        return function(*args, **{k: jnp.asarray(a, jnp.float32) for k, a in kwargs.items()})

    return cast


def _column(t):
    """Scalars of shape `()` or `(...)`, ready to multiply vectors `(..., d)`."""
    return t if t.ndim == 0 else t[..., None]


# --- norms, products and the two projections onto a sphere -------------------------------------


@in_float32
def dot(u, w):
    """`<u, w>` as `(..., 1)`: a float32 sum, which no matmul precision setting can lower."""
    return jnp.sum(u * w, axis=-1, keepdims=True)


@in_float32
def safe_norm(x):
    """`|x|` as `(...)`; the gradient at x = 0 is 0, not NaN."""
    return jnp.sqrt(jnp.sum(x * x, axis=-1) + 1e-30)


@in_float32
def normalize(x, radius=1.0):
    """Token projection `R x / |x|`; a zero vector stays zero (its radius error is then 1)."""
    return radius * x * jax.lax.rsqrt(dot(x, x) + 1e-12)


@in_float32
def spherify(z, eps=1e-6):
    """Global projection of `(B, ...)`: RMS 1 over all axes but the first, radius `sqrt(L)`."""
    axes = tuple(range(1, z.ndim))
    return z * jax.lax.rsqrt(jnp.mean(z * z, axis=axes, keepdims=True) + eps)


def uniform(key, shape, radius=1.0):
    """Uniform points of the sphere: `shape` is `(..., d)`."""
    return normalize(jax.random.normal(key, shape, jnp.float32), radius)


# --- angles ------------------------------------------------------------------------------------


@in_float32
def sinc(x):
    """`sin(x) / x`, with a derivative that is accurate to rounding everywhere.

    The quotient's own derivative cancels near zero, so a Taylor branch serves |x| < 1/4, where the
    terms left out are below 5e-11.
    """
    small = jnp.abs(x) < 0.25
    y, s = jnp.where(small, 1.0, x), jnp.where(small, x * x, 0.0)
    series = 1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0))
    return jnp.where(small, series, jnp.sin(y) / y)


@in_float32
def angle(u, w):
    """Angle between u and w in [0, pi], as `(...)`: `2 atan2(|u - w|, |u + w|)`.

    Unlike `arccos <u,w>` it is exact to rounding over the whole range and needs no clamp.
    """
    return 2.0 * jnp.arctan2(safe_norm(u - w), safe_norm(u + w))


@in_float32
def distance(u, w, radius=1.0):
    """Geodesic distance `R angle(u, w)` as `(...)`, between the directions u and w."""
    return radius * angle(u, w)


# --- tangent space -----------------------------------------------------------------------------


@in_float32
def radial(u, v):
    """Part of v along u: `<u,v> u`."""
    return dot(u, v) * u


@in_float32
def tangent(u, v):
    """Part of v tangent at u: `v - <u,v> u`. The second pass removes the rounding of the first."""
    v = v - radial(u, v)
    return v - radial(u, v)


@in_float32
def fixed_tangent(u):
    """The unit tangent at u nearest to the coordinate axis that u leans on least."""
    axis = jax.nn.one_hot(jnp.argmin(jnp.abs(u), axis=-1), u.shape[-1], dtype=jnp.float32)
    return normalize(axis - radial(u, axis))


def _great_circle(u, w):
    """`(w, angle, rate)`: the path from u at `rate` times the speed of the path from u to w.

    Ordinarily w itself and 1; for antipodes a quarter turn along `fixed_tangent(u)` and 2. The
    angle and the rate are columns `(..., 1)`.
    """
    theta = angle(u, w)[..., None]
    antipodal = theta > math.pi - ANTIPODAL
    w = jnp.where(antipodal, fixed_tangent(u), w)
    return w, jnp.where(antipodal, math.pi / 2, theta), jnp.where(antipodal, 2.0, 1.0)


@in_float32
def exp(u, v):
    """End of the geodesic that leaves u with velocity v (tangent at u): `cos|v| u + sinc|v| v`."""
    n = safe_norm(v)[..., None]
    return normalize(jnp.cos(n) * u + sinc(n) * v)


@in_float32
def retract(u, v):
    """`(u + v) / |u + v|`: turns by `atan|v|` where `exp` turns by `|v|`."""
    return normalize(u + v)


@in_float32
def log(u, w):
    """The tangent at u that `exp` carries to w: `(w - cos(th) u) / sinc(th)`, of norm th.

    Written as the tangent part of `w - u`, which loses no digits between near points.
    """
    w, theta, rate = _great_circle(u, w)
    return rate * tangent(u, w - u) / sinc(theta)


@in_float32
def transport(u, w, v):
    """Parallel transport of v (tangent at u) along the geodesic to w.

    `v - <w,v>/(1+<u,w>) (u+w)` is the reflection `v - 2 <m,v> m` with m the unit midpoint of u and
    w, so norms are kept exactly; between antipodes m is the midpoint of the fixed great circle.
    """
    antipodal = angle(u, w)[..., None] > math.pi - ANTIPODAL
    m = normalize(jnp.where(antipodal, fixed_tangent(u), u + w))
    return v - 2.0 * radial(m, v)


# --- paths -------------------------------------------------------------------------------------


@in_float32
def slerp(u, w, t):
    """Great circle from u (t = 0) to w (t = 1): `[sin((1-t)th) u + sin(t th) w] / sin(th)`.

    No sine is divided by a sine: with `sinc` the formula is the straight line at th = 0.
    """
    w, theta, rate = _great_circle(u, w)
    t = rate * _column(t)
    a, b = (1.0 - t) * sinc((1.0 - t) * theta), t * sinc(t * theta)
    return normalize((a * u + b * w) / sinc(theta))


@in_float32
def slerp_velocity(u, w, t):
    """`d slerp / dt = [cos(t th) w - cos((1-t)th) u] / sinc(th)`: tangent, of constant norm th."""
    w, theta, rate = _great_circle(u, w)
    t = rate * _column(t)
    return rate * (jnp.cos(t * theta) * w - jnp.cos((1.0 - t) * theta) * u) / sinc(theta)


@in_float32
def nlerp(u, w, t):
    """The chord, renormalised: `c / |c|` with `c = (1-t) u + t w`; slerp's circle if antipodal."""
    antipodal = angle(u, w)[..., None] > math.pi - ANTIPODAL
    s = _column(t)
    chord = jnp.where(antipodal, u, (1.0 - s) * u + s * w)
    return jnp.where(antipodal, slerp(u, w, t), normalize(chord))


@in_float32
def nlerp_velocity(u, w, t):
    """`d nlerp / dt`: the tangent part of `w - u` at the path's point, divided by `|c|`."""
    antipodal = angle(u, w)[..., None] > math.pi - ANTIPODAL
    s = _column(t)
    chord = jnp.where(antipodal, u, (1.0 - s) * u + s * w)
    velocity = tangent(normalize(chord), w - u) / safe_norm(chord)[..., None]
    return jnp.where(antipodal, slerp_velocity(u, w, t), velocity)


# --- noise at an angle -------------------------------------------------------------------------


@in_float32
def angular_noise(v, e, alpha):
    """`f(v + tan(alpha) e)` (B, C, E): v of RMS 1, e ~ N(0, I), alpha in [0, 89 deg], in rad.

    The angle to v is alpha to within about `1/sqrt(d)`. Flatten a latent first to act on its
    global sphere; f is `spherify` along the last axis.
    """
    z = v + jnp.tan(_column(alpha)) * e
    return z * jax.lax.rsqrt(dot(z, z) / z.shape[-1] + 1e-6)


@in_float32
def exact_angle_noise(u, q, a):
    """`cos(a) u + sin(a) q`: at angle a from u exactly, for q tangent at u and of u's norm."""
    a = _column(a)
    return jnp.cos(a) * u + jnp.sin(a) * q


@in_float32
def rotation_noise(v, e, a):
    """`cos(a) v + sin(a) f(e)` (F2): v of RMS 1, e ~ N(0, I) not made orthogonal to v, a in rad.

    a = 0 returns v, a = pi/2 returns f(e); between, the squared norm is off by `sin(2a) cos(v,e)`.
    """
    a = _column(a)
    return jnp.cos(a) * v + jnp.sin(a) * normalize(e, math.sqrt(e.shape[-1]))


@in_float32
def rotate_away(z, u, b):
    """z turned by b rad away from u (F2 angle guidance), at z's own radius.

    Where z and u are parallel there is no such direction (tangent norm < 1e-6) and z is returned.
    """
    b, direction = _column(b), normalize(z)
    away = -tangent(direction, normalize(u))
    parallel = safe_norm(away)[..., None] < 1e-6
    unit = normalize(jnp.where(parallel, 1.0, away), safe_norm(z)[..., None])
    return jnp.where(parallel, z, jnp.cos(b) * z + jnp.sin(b) * unit)
