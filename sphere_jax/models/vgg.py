"""The convolutions of VGG-16 (1409.1556), tapped where LPIPS reads them."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.nn.norms import per_channel

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)  # convolutions a stage; the grid is halved between stages


class VGG16(nnx.Module):
    """13 convolutions of 3x3 in five stages; no classifier.

    `widths` are the channels of the five stages, `dtype` is that of the products; parameters are
    float32.
    """

    smallest_side = 16  # one pixel is left in the last stage

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        widths: tuple[int, ...] = WIDTHS,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.widths = widths
        convs, channels = [], 3
        for width, depth in zip(widths, DEPTHS, strict=True):
            for _ in range(depth):
                convs.append(nnx.Conv(channels, width, (3, 3), padding=1, dtype=dtype, rngs=rngs))
                channels = width
        self.convs = nnx.List(convs)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Normalised images (B, H, W, 3) to relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.

        Map k = 0..4 is (B, H / 2^k, W / 2^k, widths[k]), sides rounded down, in `dtype`.
        """
        convs, taps = iter(self.convs), []
        for stage, depth in enumerate(DEPTHS):
            if stage:
                x = max_pool(x)
            for _ in range(depth):
                x = nnx.relu(convolve(next(convs), x))
            taps.append(x)
        return taps


def convolve(conv: nnx.Conv, x: jax.Array) -> jax.Array:
    """`conv(x)` for a square odd kernel of stride 1, zero-padded to keep the grid.

    A grid smaller than the kernel is one matrix product: XLA on CPU takes such convolutions
    through a loop that is 60 times slower, and VGG comes down to 2x2 from 32 pixels.
    """
    size, (height, width) = conv.kernel_size[0], x.shape[1:3]
    if min(height, width) >= size:
        return conv(x)
    edge = (size // 2, size // 2)
    padded = jnp.pad(x.astype(conv.dtype), ((0, 0), edge, edge, (0, 0)))
    places = [(i, j) for i in range(size) for j in range(size)]
    patches = jnp.concatenate([padded[:, i : i + height, j : j + width] for i, j in places], -1)
    kernel = conv.kernel[...].astype(conv.dtype).reshape(patches.shape[-1], -1)
    return patches @ kernel + per_channel(conv.bias[...].astype(conv.dtype), x.ndim)


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of each 2x2: (B, H, W, C) -> (B, H / 2, W / 2, C), sides rounded down.

    Its gradient is shared among equal values and costs far less than that of a windowed reduction.
    """
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    return jnp.max(x, axis=(2, 4))
