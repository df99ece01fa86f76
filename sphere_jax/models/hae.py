"""What HAE (2601.22904) puts in place of the patch embedding of its frozen ViT.
docs/systems/hae.md#stem."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.dc_ae_blocks import NORMS, conv

SIZES = (7, 3, 3, 3)  # of the kernels; every convolution halves the grid


class ConvStem(nnx.Module):
    """Images (B, H, W, 3) to tokens (B, H / 16, W / 16, widths[-1]) in `dtype`, sides rounded up.

    Four convolutions of stride 2 without bias, norm and SiLU between them. `norm` is a key of
    `nn.dc_ae.NORMS`; HAE's code has one RMS a sample. Kernels start within +-1 / sqrt(fan_in).
    """

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (64, 128, 256, 1024),
        norm: str = "sample_rms",
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
    ):
        inputs = (3, *widths)
        self.convs = nnx.List(
            [
                conv(c, width, size=size, stride=2, bias=False, rngs=rngs, dtype=dtype)
                for c, width, size in zip(inputs, widths, SIZES, strict=False)
            ]
        )
        self.norms = nnx.List([NORMS[norm](width) for width in widths[:-1]])

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Maps "conv_1", "conv_2", "conv_3" behind norm and SiLU, and "tokens"."""
        x, maps = images, {}
        for n, norm in enumerate(self.norms):
            maps[f"conv_{n + 1}"] = x = jax.nn.silu(norm(self.convs[n](x)))
        return maps | {"tokens": self.convs[-1](x)}

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.features(images)["tokens"]
