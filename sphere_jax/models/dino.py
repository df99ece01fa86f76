"""Vision transformers with learned positions: DINO (2104.14294), DINOv2 (2304.07193; registers
2309.16588), and what MAE, CLIP and SigLIP share with them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphere_jax.models.vit import SIZES, VisionTransformer
from sphere_jax.nn.linear import small_normal
from sphere_jax.nn.remat import Remat
from sphere_jax.nn.resize import interpolation

# The published networks, by their torch.hub names, as arguments of `DINO`.
KINDS = {
    "dino_vits8": dict(zip(("width", "depth", "heads"), SIZES["s"], strict=True))
    | dict(patch=8, grid=28, layer_scale=False)
}
for _size, (_width, _depth, _heads) in SIZES.items():
    _kind = dict(width=_width, depth=_depth, heads=_heads, patch=14, grid=37)
    KINDS[f"dinov2_vit{_size}14"] = _kind
    KINDS[f"dinov2_vit{_size}14_reg"] = _kind | dict(registers=4, offset=0.0, antialias=True)


class DINO(VisionTransformer):
    """A vision transformer with a learned table of positions, (1 + grid^2, width), class first;
    (grid^2, width) without a class token.

    Called with ImageNet-normalised images (B, H, W, 3); see `VisionTransformer`. On any other grid
    than `grid` x `grid` the table is resized bicubically, and there the originals differ: DINO and
    DINOv2 without registers ask PyTorch for the scale (h + 0.1) / grid, which shifts all positions
    (`offset=0.1`); DINOv2 with registers asks for the size, with antialiasing (`offset=0`,
    `antialias=True`). `KINDS` are those of Meta. transformers agrees with them for registers; for
    the others its models are `offset=0`. timm asks for the size, with antialiasing, in all models.

    Raises:
        ValueError: if `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        grid: int,
        *,
        rngs: nnx.Rngs,
        registers: int = 0,
        layer_scale: bool = True,
        mlp_ratio: float = 4,
        eps: float = 1e-6,
        offset: float = 0.1,
        antialias: bool = False,
        final_affine: bool = True,
        exact_gelu: bool = True,
        activation: Callable[[jax.Array], jax.Array] | None = None,
        pre_norm: bool = False,
        class_token: bool = True,
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
            key_bias=True,
            layer_scale=layer_scale,
            swiglu=False,
            eps=eps,
            final_affine=final_affine,
            exact_gelu=exact_gelu,
            activation=activation,
            pre_norm=pre_norm,
            class_token=class_token,
            dtype=dtype,
            unroll=unroll,
            remat=remat,
            rngs=rngs,
        )
        self.positions = nnx.Param(
            small_normal(rngs.params(), (class_token + grid * grid, width), jnp.float32)
        )
        self.grid, self.offset, self.antialias = grid, offset, antialias

    def _place(self, cls, patches, grid):
        cls_position, table = jnp.split(self.positions[...], [0 if cls is None else 1])
        if grid != (self.grid, self.grid):
            rows, columns = (placing(self.grid, n, self.offset, self.antialias) for n in grid)
            table = table.reshape(self.grid, self.grid, self.width)
            table = jnp.einsum("wc,rcd->rwd", columns, table, precision="highest")
            table = jnp.einsum("hr,rwd->hwd", rows, table, precision="highest")
        cls = None if cls is None else cls + cls_position
        return cls, patches + table.reshape(1, -1, self.width)


def placing(grid: int, target: int, offset: float, antialias: bool) -> np.ndarray:
    """Bicubic, (target, grid): output i stands at (i + 0.5) grid / (target + offset) - 0.5."""
    slope, step = -0.5 if antialias else -0.75, grid / (target + offset)
    return interpolation(grid, target, slope, antialias, step)
