"""Component swap: the length of one image's tokens with the direction of another's
(docs/systems/spherical_flow.md#probes)."""

import jax
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.data.source import Source
from sphere_jax.geometry import sphere

CONTROL, WHOLE = "r_a u_a (control)", "b (whole latent)"
RADIUS, DIRECTION = "r_b u_a (radius swapped)", "r_a u_b (direction swapped)"


def choose(source: Source, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, H, W, C) and labels (N,), N <= num, in the order of the data.

    Raises:
      UserError: no two of them are of one class.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(source))[:num])
    found = source.read(rows)
    if len(np.unique(found["labels"])) == len(rows):
        raise UserError(f"{len(rows)} images hold no two of one class; give a larger --num.")
    return found["images"], found["labels"]


def partners(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (M,) of the anchors a, ascending, and of their neighbours b.

    b is another image of a's class; every image is the neighbour of one. Images that are alone in
    their class are left out.
    """
    rng, neighbour = np.random.default_rng(seed), np.full(len(labels), -1)
    for label in np.unique(labels):
        ring = rng.permutation(np.flatnonzero(labels == label))
        if len(ring) > 1:
            neighbour[ring] = np.roll(ring, 1)
    anchors = np.flatnonzero(neighbour >= 0)
    return anchors, neighbour[anchors]


@jax.jit
def recombine(radii: jax.Array, directions: jax.Array) -> jax.Array:
    """`r u` token by token: the norms of the one latent with the directions of the other.

    Both are (B, h, w, d); a zero token has no direction and stays zero.
    """
    return sphere.normalize(directions, sphere.safe_norm(radii)[..., None])
