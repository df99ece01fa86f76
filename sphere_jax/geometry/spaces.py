"""Where latents live: one frozen dataclass for each space, all with the same methods.

Latents are `(B, h, w, d)`, times `(B,)` or `()`; t = 0 is data and t = 1 is noise. Results are
float32. The geometry is `sphere.py`, applied to the unit rows of a latent: `h w` rows of d numbers
for the token sphere, one row of `L = h w d` for the global sphere. A space is hashable, so a jitted
function can close over it or take it as a static argument.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float32

from sphere_jax.common.shapes import Latents, PerSample, Scalar
from sphere_jax.geometry import sphere

PATHS = ("linear", "polar", "data_projected", "shell_linear", "nlerp", "slerp")
SPHERES = ("token", "global")
RETRACTIONS = ("exp", "renormalize")


Times = Scalar | PerSample
PerRow = Float32[Array, "batch rows"]


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

    def project(self, z: Latents) -> Latents:
        """The latents as float32: every array is in the space."""
        return _float32(z)

    def prior(self, noise: Latents) -> Latents:
        """Standard Gaussian noise mapped to the distribution at t = 1."""
        return self.project(noise)

    def interpolate(self, z0: Latents, z1: Latents, t: Times) -> tuple[Latents, Latents]:
        """Path from data `z0` to noise `z1`: `z_t` and its time derivative `u_t`."""
        z0, z1 = _float32(z0), _float32(z1)
        t = _per_sample(t, z0)
        return (1.0 - t) * z0 + t * z1, z1 - z0

    def split(self, z: Latents, v: Latents) -> tuple[Latents, Latents]:
        """v as the sum of its tangent and radial parts at z."""
        v = _float32(v)
        return v, jnp.zeros_like(v)

    def tangent(self, z: Latents, v: Latents) -> Latents:
        """Tangent part of v at z."""
        return self.split(z, v)[0]

    def step(self, z: Latents, v: Latents, dt: Times) -> Latents:
        """The point reached from z with velocity v after a time dt, `()` or `(B,)`."""
        z, v = _float32(z), _float32(v)
        return z + _per_sample(dt, z) * v

    def transport(self, a: Latents, b: Latents, v: Latents) -> Latents:
        """The velocity v at a as a velocity at b."""
        return _float32(v)

    def distance(self, a: Latents, b: Latents) -> PerSample:
        """`(B,)`: root mean square, over the tokens, of their Euclidean distance."""
        apart = (_float32(a) - _float32(b)).reshape(a.shape[0], -1)
        return sphere.safe_norm(apart) / math.sqrt(math.prod(a.shape[1:-1]))

    def relative_radius(self, z: Latents) -> PerRow:
        """`(B, h w)`: norms of the tokens, in units of the norm of noise, `sqrt(d)`."""
        return sphere.safe_norm(z).reshape(z.shape[0], -1) / math.sqrt(z.shape[-1])

    def norm_error(self, z: Latents) -> Float32[Array, ""]:
        """`()`: the largest relative radius error: 0, since this space has no radius."""
        return jnp.zeros((), jnp.float32)


@dataclass(frozen=True)
class ProjectedEuclidean(Euclidean):
    """`shell_linear`: data and prior on spheres, the straight chord between them, Euclidean steps.

    Samples leave the spheres and may end off them: `project` before decoding. `radius` is that of
    the token sphere; None means the global sphere (RMS 1).
    """

    radius: float | None

    @property
    def shell(self) -> "TokenSphere | GlobalSphere":
        return GlobalSphere() if self.radius is None else TokenSphere(self.radius)

    def project(self, z: Latents) -> Latents:
        """Onto the sphere of data and prior."""
        return self.shell.project(z)

    def relative_radius(self, z: Latents) -> PerRow:
        """`(B, rows)`: norms of the rows in units of the radius; below 1 along the chord."""
        return self.shell.relative_radius(z)


@dataclass(frozen=True)
class ProjectedData(ProjectedEuclidean):
    """`data_projected`: data on spheres, raw Gaussian noise, a straight chord (arXiv 2605.15193;
    docs/systems/spherical_flow.md#ablation-grid)."""

    def prior(self, noise: Latents) -> Latents:
        """Standard Gaussian noise, unchanged."""
        return _float32(noise)


@dataclass(frozen=True)
class Polar(Euclidean):
    """`polar`: raw latents and Gaussian noise; norm and direction are interpolated separately.

    `z_t = ((1 - t) r0 + t r1) slerp(z0 / r0, z1 / r1, t)`: norms stay between those of both ends.
    Steps are Euclidean. It is the control "shell path" of
    docs/systems/spherical_flow.md#published-results: the curve without the sphere. A row is a
    token, or the whole latent if `whole`.
    """

    whole: bool = False

    def interpolate(self, z0: Latents, z1: Latents, t: Times) -> tuple[Latents, Latents]:
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
    """The methods that both spheres share; a subclass defines its rows and their radius.

    The path is `slerp` (the geodesic) or `nlerp` (the renormalised chord); a step is `exp` (the
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

    def prior(self, noise: Latents) -> Latents:
        """Gaussian noise mapped to the uniform distribution on the sphere."""
        return self.project(noise)

    def interpolate(self, z0: Latents, z1: Latents, t: Times) -> tuple[Latents, Latents]:
        """Path from data `z0` to noise `z1`, both on the sphere: `z_t` and `u_t = d z_t / dt`."""
        (u, radius), (w, _) = self._units(z0), self._units(z1)
        t = _per_sample(t, u[..., 0])
        if self.path == "slerp":
            z_t, u_t = sphere.slerp(u, w, t), sphere.slerp_velocity(u, w, t)
        else:
            z_t, u_t = sphere.nlerp(u, w, t), sphere.nlerp_velocity(u, w, t)
        return (radius * z_t).reshape(z0.shape), (radius * u_t).reshape(z0.shape)

    def split(self, z: Latents, v: Latents) -> tuple[Latents, Latents]:
        """v as the sum of its tangent and radial parts at z."""
        u, _ = self._units(z)
        v = self._rows(_float32(v))
        return sphere.tangent(u, v).reshape(z.shape), sphere.radial(u, v).reshape(z.shape)

    def tangent(self, z: Latents, v: Latents) -> Latents:
        """Tangent part of v at z."""
        return self.split(z, v)[0]

    def step(self, z: Latents, v: Latents, dt: Times) -> Latents:
        """The point reached from z along the tangent part of v after a time dt, `()` or `(B,)`."""
        u, radius = self._units(z)
        v = sphere.tangent(u, self._rows(_float32(v))) / radius
        move = sphere.exp if self.retraction == "exp" else sphere.retract
        return (radius * move(u, _per_sample(dt, u) * v)).reshape(z.shape)

    def transport(self, a: Latents, b: Latents, v: Latents) -> Latents:
        """The tangent part of v at a, in parallel transport along the geodesic to b."""
        (u, _), (w, _) = self._units(a), self._units(b)
        v = sphere.tangent(u, self._rows(_float32(v)))
        return sphere.transport(u, w, v).reshape(a.shape)

    def angles(self, a: Latents, b: Latents) -> PerRow:
        """`(B, rows)`: angles between the rows of a and those of b, in rad."""
        return sphere.angle(self._units(a)[0], self._units(b)[0])

    def distance(self, a: Latents, b: Latents) -> PerSample:
        """`(B,)`: root mean square, over the rows, of the geodesic distance."""
        (u, radius), (w, _) = self._units(a), self._units(b)
        return radius * sphere.safe_norm(sphere.angle(u, w)) / math.sqrt(u.shape[1])

    def relative_radius(self, z: Latents) -> PerRow:
        """`(B, rows)`: norms of the rows in units of the radius, 1 on the sphere."""
        rows = self._rows(_float32(z))
        return sphere.safe_norm(rows) / self._radius(rows)

    def norm_error(self, z: Latents) -> Float32[Array, ""]:
        """`()`: the largest relative radius error; 1 if a token is zero."""
        return jnp.max(jnp.abs(self.relative_radius(z) - 1.0))


@dataclass(frozen=True)
class TokenSphere(_Sphere):
    """`(S^{d-1}_R)^{h w}`: each latent position on a sphere of radius R (systems A, D and RJF)."""

    radius: float

    def _rows(self, z):
        return z.reshape(z.shape[0], -1, z.shape[-1])

    def _radius(self, rows):
        return self.radius

    def project(self, z: Latents) -> Latents:
        """Every token scaled to radius R; a zero token stays zero (`norm_error` is then 1)."""
        return sphere.normalize(z, self.radius)


@dataclass(frozen=True)
class GlobalSphere(_Sphere):
    """`S^{L-1}` of radius `sqrt(L)`: the flattened latent at RMS 1 (systems B, C, E and F2)."""

    def _rows(self, z):
        return z.reshape(z.shape[0], 1, -1)

    def _radius(self, rows):
        return math.sqrt(rows.shape[-1])

    def project(self, z: Latents) -> Latents:
        """Each latent scaled to RMS 1 over all its numbers."""
        return sphere.spherify(z)


Space = Euclidean | ProjectedEuclidean | TokenSphere | GlobalSphere


def make_space(
    path: str,
    sphere: str,
    radius: float,
    latent_shape: tuple[int, ...],
    retraction: str = "exp",
) -> Space:
    """The space of a config.

    Args:
        path: one of `PATHS`; "linear" and "polar" leave latents unprojected.
        sphere: "token" or "global".
        radius: of the token sphere; 0 means `sqrt(d)`.
        latent_shape: `(h, w, d)`.
        retraction: "exp" or "renormalize".

    Raises:
        ValueError: for any other value.
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
