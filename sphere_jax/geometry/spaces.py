"""Where latents live: one frozen dataclass a space, all with the same verbs.

Latents are `(B, h, w, d)`, times `(B,)` or `()`; t = 0 is data and t = 1 is noise. The geometry is
`sphere.py`, on the unit rows of a latent: `h w` rows of d numbers for the token sphere, one row of
`L = h w d` for the global sphere. A space is hashable, so it can be closed over or be static.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import jax.numpy as jnp

from sphere_jax.geometry import sphere

PATHS = ("linear", "polar", "data_projected", "shell_linear", "nlerp", "slerp")
SPHERES = ("token", "global")
RETRACTIONS = ("exp", "renormalize")


def _float32(x):
    return jnp.asarray(x, jnp.float32)


def _per_sample(t, z):
    """`()` or `(B,)` as float32, ready to multiply `z` of shape `(B, ...)`."""
    t = _float32(t)
    return t if t.ndim == 0 else t.reshape(t.shape + (1,) * (z.ndim - 1))


@dataclass(frozen=True)
class Euclidean:
    """Raw latents, Gaussian prior, straight paths."""

    spherical: ClassVar[bool] = False

    def project(self, z):
        """Onto the space: here every float32 array is in it."""
        return _float32(z)

    def prior(self, noise):
        """Standard Gaussian noise `(B,h,w,d)` pushed forward to the law at t = 1."""
        return self.project(noise)

    def interpolate(self, z0, z1, t):
        """Path from data `z0` to noise `z1`: `z_t` and its time derivative `u_t`."""
        z0, z1 = _float32(z0), _float32(z1)
        t = _per_sample(t, z0)
        return (1.0 - t) * z0 + t * z1, z1 - z0

    def split(self, z, v):
        """v as the sum of its tangent and radial parts at z."""
        v = _float32(v)
        return v, jnp.zeros_like(v)

    def tangent(self, z, v):
        """Tangent part of v at z."""
        return self.split(z, v)[0]

    def step(self, z, v, dt):
        """From z with velocity v for a time dt, `()` or `(B,)`."""
        z, v = _float32(z), _float32(v)
        return z + _per_sample(dt, z) * v

    def transport(self, a, b, v):
        """The velocity v at a, as a velocity at b."""
        return _float32(v)

    def distance(self, a, b):
        """`(B,)`: root mean square, over the tokens, of their Euclidean distance."""
        apart = (_float32(a) - _float32(b)).reshape(a.shape[0], -1)
        return sphere.safe_norm(apart) / math.sqrt(math.prod(a.shape[1:-1]))

    def relative_radius(self, z):
        """`(B, h w)`: token norms in units of the noise's own, `sqrt(d)`."""
        return sphere.safe_norm(z).reshape(z.shape[0], -1) / math.sqrt(z.shape[-1])

    def norm_error(self, z):
        """`()`: the largest relative radius error; there is no radius to keep here."""
        return jnp.zeros((), jnp.float32)


@dataclass(frozen=True)
class ProjectedEuclidean(Euclidean):
    """`shell_linear`: data and prior on spheres, the straight chord between them, Euclidean steps.

    The state leaves the spheres on its way and may end off them: `project` before decoding. A
    radius of None names the global sphere (RMS 1), a number the token sphere of that radius.
    """

    radius: float | None

    @property
    def shell(self):
        return GlobalSphere() if self.radius is None else TokenSphere(self.radius)

    def project(self, z):
        """Onto the sphere that holds both ends."""
        return self.shell.project(z)

    def relative_radius(self, z):
        """`(B, N)`: norms of the rows in units of the radius; below 1 inside the chord."""
        return self.shell.relative_radius(z)


@dataclass(frozen=True)
class ProjectedData(ProjectedEuclidean):
    """`data_projected`: data on spheres, raw Gaussian noise, a straight chord (methods.md A.9)."""

    def prior(self, noise):
        """Standard Gaussian noise `(B,h,w,d)` as it is."""
        return _float32(noise)


@dataclass(frozen=True)
class Polar(Euclidean):
    """`polar`: raw latents and Gaussian noise; norm and direction are interpolated apart.

    `z_t = ((1 - t) r0 + t r1) slerp(z0 / r0, z1 / r1, t)`: norms never dip below both ends. Steps
    are Euclidean. It is the control "shell path" of methods.md A.8: the curve without the sphere.
    A row is a token, or the whole latent (`whole`).
    """

    whole: bool = False

    def interpolate(self, z0, z1, t):
        """Path from data `z0` to noise `z1`: `z_t` and its time derivative `u_t`."""
        count = 1 if self.whole else math.prod(z0.shape[1:-1])
        a, b = (_float32(z).reshape(z.shape[0], count, -1) for z in (z0, z1))
        t = _per_sample(t, a[..., 0])
        r0, r1 = sphere.safe_norm(a)[..., None], sphere.safe_norm(b)[..., None]
        u, w = sphere.normalize(a), sphere.normalize(b)
        column = t[..., None] if t.ndim else t
        norm, direction = (1.0 - column) * r0 + column * r1, sphere.slerp(u, w, t)
        u_t = (r1 - r0) * direction + norm * sphere.slerp_velocity(u, w, t)
        return (norm * direction).reshape(z0.shape), u_t.reshape(z0.shape)


@dataclass(frozen=True)
class _Sphere:
    """The verbs both spheres share; a subclass says what a row is and what radius it has.

    The paths are `slerp` (the geodesic) or `nlerp` (the chord, renormalised); a step is `exp` (the
    exponential map) or `renormalize` (add, then project).
    """

    _: KW_ONLY
    path: str = "slerp"
    retraction: str = "exp"
    spherical: ClassVar[bool] = True

    def __post_init__(self):
        if self.path not in ("slerp", "nlerp"):
            raise ValueError(f"a sphere's path is 'slerp' or 'nlerp', not {self.path!r}")
        if self.retraction not in RETRACTIONS:
            raise ValueError(f"retraction is one of {RETRACTIONS}, not {self.retraction!r}")

    def _units(self, z):
        """Unit rows `(B, N, n)` of z and their radius."""
        rows = self._rows(_float32(z))
        radius = self._radius(rows)
        return sphere.normalize(rows / radius), radius

    def prior(self, noise):
        """Gaussian noise `(B,h,w,d)` pushed forward to the uniform law of the sphere."""
        return self.project(noise)

    def interpolate(self, z0, z1, t):
        """Path from data `z0` to noise `z1`, both on the sphere: `z_t` and `u_t = d z_t / dt`."""
        (u, radius), (w, _) = self._units(z0), self._units(z1)
        t = _per_sample(t, u[..., 0])
        if self.path == "slerp":
            z_t, u_t = sphere.slerp(u, w, t), sphere.slerp_velocity(u, w, t)
        else:
            z_t, u_t = sphere.nlerp(u, w, t), sphere.nlerp_velocity(u, w, t)
        return (radius * z_t).reshape(z0.shape), (radius * u_t).reshape(z0.shape)

    def split(self, z, v):
        """v as the sum of its tangent and radial parts at z."""
        u, _ = self._units(z)
        v = self._rows(_float32(v))
        return sphere.tangent(u, v).reshape(z.shape), sphere.radial(u, v).reshape(z.shape)

    def tangent(self, z, v):
        """Tangent part of v at z."""
        return self.split(z, v)[0]

    def step(self, z, v, dt):
        """From z along the tangent part of v for a time dt, `()` or `(B,)`; stays on the sphere."""
        u, radius = self._units(z)
        v = sphere.tangent(u, self._rows(_float32(v))) / radius
        move = sphere.exp if self.retraction == "exp" else sphere.retract
        return (radius * move(u, _per_sample(dt, u) * v)).reshape(z.shape)

    def transport(self, a, b, v):
        """The tangent part of v at a, carried in parallel along the geodesic to b."""
        (u, _), (w, _) = self._units(a), self._units(b)
        v = sphere.tangent(u, self._rows(_float32(v)))
        return sphere.transport(u, w, v).reshape(a.shape)

    def angles(self, a, b):
        """`(B, N)`: between the rows of a and those of b, in rad."""
        return sphere.angle(self._units(a)[0], self._units(b)[0])

    def distance(self, a, b):
        """`(B,)`: root mean square, over the rows, of the geodesic distance."""
        (u, radius), (w, _) = self._units(a), self._units(b)
        return radius * sphere.safe_norm(sphere.angle(u, w)) / math.sqrt(u.shape[1])

    def relative_radius(self, z):
        """`(B, N)`: norms of the rows in units of the radius, 1 on the sphere."""
        rows = self._rows(_float32(z))
        return sphere.safe_norm(rows) / self._radius(rows)

    def norm_error(self, z):
        """`()`: the largest relative radius error; 1 betrays a zero token."""
        return jnp.max(jnp.abs(self.relative_radius(z) - 1.0))


@dataclass(frozen=True)
class TokenSphere(_Sphere):
    """`(S^{d-1}_R)^{h w}`: every latent position on its own sphere (systems A, D and RJF)."""

    radius: float

    def _rows(self, z):
        return z.reshape(z.shape[0], -1, z.shape[-1])

    def _radius(self, rows):
        return self.radius

    def project(self, z):
        """Every token to radius R; a zero token stays zero, which `norm_error` shows."""
        return sphere.normalize(z, self.radius)


@dataclass(frozen=True)
class GlobalSphere(_Sphere):
    """`S^{L-1}` of radius `sqrt(L)`: the flattened latent at RMS 1 (systems B, C, E and F2)."""

    def _rows(self, z):
        return z.reshape(z.shape[0], 1, -1)

    def _radius(self, rows):
        return math.sqrt(rows.shape[-1])

    def project(self, z):
        """To RMS 1 over the whole latent."""
        return sphere.spherify(z)


def make_space(path, sphere, radius, latent_shape, retraction="exp"):
    """The space that a config names.

    path: one of `PATHS`, of which "linear" and "polar" leave latents raw; sphere: "token" or
    "global"; radius: of the token sphere, 0 for `sqrt(d)`; latent_shape: `(h, w, d)`; retraction:
    "exp" or "renormalize". Raises ValueError, in one sentence, for anything else.
    """
    if path not in PATHS:
        raise ValueError(f"path is one of {', '.join(PATHS)}, not {path!r}")
    if sphere not in SPHERES:
        raise ValueError(f"sphere is one of {', '.join(SPHERES)}, not {sphere!r}")
    if retraction not in RETRACTIONS:
        raise ValueError(f"retraction is one of {', '.join(RETRACTIONS)}, not {retraction!r}")
    if not (math.isfinite(radius) and radius >= 0.0):
        raise ValueError(f"radius is positive, or 0 for sqrt(d), not {radius}")
    if path == "linear":
        return Euclidean()
    if path == "polar":
        return Polar(whole=sphere == "global")
    chord = {"shell_linear": ProjectedEuclidean, "data_projected": ProjectedData}.get(path)
    if sphere == "global":
        if radius:
            raise ValueError(f"the global sphere has RMS 1, so radius must be 0, not {radius}")
        if chord:
            return chord(None)
        return GlobalSphere(path=path, retraction=retraction)
    if latent_shape[-1] < 2:
        raise ValueError(f"a token sphere needs 2 channels or more, not {latent_shape[-1]}")
    radius = float(radius) or math.sqrt(latent_shape[-1])
    if chord:
        return chord(radius)
    return TokenSphere(radius, path=path, retraction=retraction)


Space = Euclidean | ProjectedEuclidean | TokenSphere | GlobalSphere
