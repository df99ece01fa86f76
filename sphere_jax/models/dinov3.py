"""DINOv3 (2508.10104): positions by rotation."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphere_jax.models.vit import SIZES, Rotation, VisionTransformer
from sphere_jax.nn.remat import Remat

ROPE_BASE = 100.0

# The published networks, by their torch.hub names, as arguments of `DINOv3`.
KINDS = {
    f"dinov3_vit{size}16": dict(width=width, depth=depth, heads=heads, patch=16, registers=4)
    for size, (width, depth, heads) in SIZES.items()
}
KINDS["dinov3_vits16plus"] = KINDS["dinov3_vits16"] | dict(swiglu=True)


class DINOv3(VisionTransformer):
    """A vision transformer with axial RoPE on its patches, LayerScale and no bias of keys.

    Called with ImageNet-normalised images (B, H, W, 3); see `VisionTransformer`. `swiglu` has a
    gated feed-forward of the same hidden size, `mlp_ratio` x width. `rope_dtype` is what the
    periods of the rotation are rounded to: float32 in transformers and timm, bfloat16 in the files
    that Meta publishes, which its own code takes from there. Random networks of size S give tokens
    that differ by 1e-4 to 4e-4 between the two.

    Raises:
        ValueError: if `heads` does not divide `width`, or 4 the head dimension.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        *,
        rngs: nnx.Rngs,
        registers: int = 4,
        layer_scale: bool = True,
        swiglu: bool = False,
        mlp_ratio: float = 4,
        eps: float = 1e-5,
        rope_dtype: jnp.dtype = jnp.float32,
        final_affine: bool = True,
        embeds: bool = True,
        dtype: jnp.dtype = jnp.float32,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        super().__init__(
            width,
            depth,
            heads,
            patch,
            registers=registers,
            mlp_ratio=mlp_ratio,
            key_bias=False,
            layer_scale=layer_scale,
            swiglu=swiglu,
            eps=eps,
            final_affine=final_affine,
            embeds=embeds,
            dtype=dtype,
            unroll=unroll,
            remat=remat,
            rngs=rngs,
        )
        if width // heads % 4:
            raise ValueError(
                f"2-D RoPE needs a head dimension divisible by 4, got {width // heads}"
            )
        self.rope_dtype = jnp.dtype(rope_dtype)

    def periods(self) -> np.ndarray:
        """Of the rotation, in units of half an image side: (head_dim / 4,) float64."""
        quarter = self.width // self.heads // 4
        exact = ROPE_BASE ** (np.arange(quarter) / quarter)
        return exact.astype(self.rope_dtype).astype(np.float64)

    def _rotation(self, grid) -> Rotation:
        return axial_rotation(grid, tuple(self.periods()), 1 + self.registers)


@lru_cache(maxsize=32)
def axial_rotation(grid: tuple[int, int], periods: tuple[float, ...], first: int) -> Rotation:
    """cos and sin of the angle of every token and channel, (first + h w, 4 len(periods)) float64.

    The `first` tokens are not turned. Patch centres have coordinates in (-1, 1) on either axis,
    whatever the size; the angles are `2 pi coordinate / period`, rows then columns, and the same
    again for the second half of the channels.
    """
    rows, columns = ((np.arange(n) + 0.5) / n * 2 - 1 for n in grid)
    rows, columns = np.meshgrid(rows, columns, indexing="ij")
    frequencies = 2 * np.pi / np.asarray(periods)
    angles = np.concatenate([np.outer(x.ravel(), frequencies) for x in (rows, columns)], axis=1)
    angles = np.concatenate([np.zeros((first, angles.shape[1])), angles])
    angles = np.tile(angles, 2)
    return np.cos(angles), np.sin(angles)
