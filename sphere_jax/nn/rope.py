"""Rotary position embedding over the rows and columns of a token grid.
docs/systems/shared.md#blocks."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from sphere_jax.common.shapes import AnyArray
from sphere_jax.distribution.placement import platform


@lru_cache(maxsize=32)
def axial_angles(
    grid: tuple[int, int], head_dim: int, base: float = 10000.0
) -> Float64[np.ndarray, "{grid[0]}*{grid[1]} {head_dim}//2"]:
    """Rotation angle of every channel pair at every token: (h * w, head_dim / 2) float64.

    The first half of the pairs rotates with the row index, the second half with the column index,
    at `base^(-2k / (head_dim / 2))` radians per row or column. Tokens are in raster order.

    Raises:
        ValueError: if `head_dim` is not divisible by 4.
    """
    if head_dim % 4:
        raise ValueError(f"2-D RoPE needs a head dimension divisible by 4, got {head_dim}")
    frequencies = base ** (-2 * np.arange(head_dim // 4) / (head_dim // 2))
    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    return np.concatenate(
        [np.outer(rows.ravel(), frequencies), np.outer(columns.ravel(), frequencies)], axis=1
    )


def rotate(
    x: Float[AnyArray, "batch tokens heads head_dim"],
    angles: Float[np.ndarray, "tokens head_dim//2"],
) -> Float[AnyArray, "batch tokens heads head_dim"]:
    """Rotates channel pairs (2k, 2k + 1) of x (B, N, heads, head_dim) by angles (N, head_dim / 2).

    `(x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin)`, in float32, returned in the dtype of `x`.
    """
    cos = np.repeat(np.cos(angles), 2, axis=1)
    sin = np.repeat(np.sin(angles), 2, axis=1)
    even = np.arange(sin.shape[1]) % 2 == 0
    table = lambda values: jnp.asarray(values, jnp.float32)[None, :, None, :]  # noqa: E731
    y = x.astype(jnp.float32)
    if platform() == "tpu":
        # Moving channels by one is a copy to another layout there, forward and backward. Each
        # product below has one term, -x1 or x0, and is exact (docs/performance.md).
        swap = np.diag(np.where(even, 1, 0)[:-1], 1) - np.diag(np.where(even, 1, 0)[:-1], -1)
        partner = jnp.einsum(
            "bnhd,de->bnhe",
            x,
            jnp.asarray(swap, x.dtype),
            precision="highest",
            preferred_element_type=jnp.float32,
        )
        return (y * table(cos) + partner * table(sin)).astype(x.dtype)
    # Each channel is combined with its partner: the next one if even, the previous one if odd. Two
    # rolls, multiplied by tables that are zero for the wrong half, avoid splitting the channel axis
    # into pairs.
    turned = (
        y * table(cos)
        + jnp.roll(y, -1, axis=-1) * table(np.where(even, -sin, 0))
        + jnp.roll(y, 1, axis=-1) * table(np.where(even, 0, sin))
    )
    return turned.astype(x.dtype)
