"""Norms along the paths from data to noise, and the radial share of their velocity
(docs/systems/spherical_flow.md#probes)."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.geometry import sphere
from sphere_jax.geometry.spaces import Euclidean, ProjectedEuclidean, Space, TokenSphere

TIMES = np.linspace(0.0, 1.0, 21, dtype=np.float32)  # 0 is data, 1 is noise
RAW, SHELL, SLERP = "linear, raw", "linear on the shell", "slerp"


class Shell(NamedTuple):
    """Token norms of a set of latents: their mean and their standard deviation."""

    radius: float
    width: float

    @property
    def variation(self) -> float:
        """The coefficient of variation, CV."""
        return self.width / self.radius

    def at(self, radius: float) -> "Shell":
        """The same tokens, scaled by one number so that their mean norm is `radius`."""
        return Shell(radius, self.variation * radius)


def shell(latents: np.ndarray) -> Shell:
    """That of latents (N, h, w, d), over the tokens of all of them."""
    norms = np.linalg.norm(np.asarray(latents, np.float64), axis=-1)
    return Shell(float(norms.mean()), float(norms.std()))


def spaces(d: int) -> dict[str, Space]:
    """The three kinds of path; spheres have radius sqrt(d)."""
    radius = math.sqrt(d)
    return {RAW: Euclidean(), SHELL: ProjectedEuclidean(radius), SLERP: TokenSphere(radius)}


def ends(kind: str, data: Shell, noise: Shell, d: int) -> tuple[Shell, Shell]:
    """The shells at both ends of a path of this kind.

    On the sphere both have its radius and no width; a width is then that of the raw shell, scaled
    to that radius, so that all three kinds are measured in the same units.
    """
    return (data, noise) if kind == RAW else (data.at(math.sqrt(d)), noise.at(math.sqrt(d)))


def to_nearest(norms, shells: tuple[Shell, Shell]):
    """`min_k |norm - r_k| / sigma_k`, of any shape; a shell without width is given 1e-6 of r_k."""
    gaps = (abs(norms - s.radius) / max(s.width, 1e-6 * s.radius) for s in shells)
    return functools.reduce(jnp.minimum, gaps)


@functools.partial(jax.jit, static_argnums=(0, 3))
def along(
    space: Space, latents: jax.Array, noise: jax.Array, shells: tuple[Shell, Shell]
) -> dict[str, jax.Array]:
    """Means over the tokens of each pair, at each of `TIMES`: three arrays (B, T).

    "norm": `|z_t|`; "delta": `min_k |‖z_t‖ - r_k| / sigma_k` over the shells of both ends;
    "share": `(<z_t, v> / (|z_t| |v|))^2` with v the velocity of the path.

    Args:
      latents, noise: (B, h, w, d), as encoded and standard Gaussian.
    """
    z0, z1 = space.project(latents), space.prior(noise)

    def at(t):
        z, v = space.interpolate(z0, z1, t)
        norm = sphere.safe_norm(z)
        cosine = sphere.dot(z, v)[..., 0] / (norm * sphere.safe_norm(v))
        found = {"norm": norm, "delta": to_nearest(norm, shells), "share": cosine**2}
        return {name: jnp.mean(x, axis=(1, 2)) for name, x in found.items()}

    return jax.tree.map(jnp.transpose, jax.lax.map(at, jnp.asarray(TIMES)))
