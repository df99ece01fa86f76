"""The convolutions of AlexNet in its one-tower form (1404.5997), tapped where LPIPS reads them."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.vgg import convolve

WIDTHS = (64, 192, 384, 256, 256)
KERNELS = (11, 5, 3, 3, 3)
POOLED = (1, 2)  # convolutions behind a 3x3 pooling of stride 2


class AlexNet(nnx.Module):
    """Five convolutions, the first of stride 4; no classifier.

    `widths` are their channels, `dtype` is that of the products; parameters are float32.
    """

    smallest_side = 31  # one pixel is left behind the second pooling

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        widths: tuple[int, ...] = WIDTHS,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.widths = widths
        convs, channels = [], 3
        for width, kernel in zip(widths, KERNELS, strict=True):
            stride, padding = (4, 2) if kernel == 11 else (1, kernel // 2)
            convs.append(
                nnx.Conv(
                    channels,
                    width,
                    (kernel, kernel),
                    strides=stride,
                    padding=padding,
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            channels = width
        self.convs = nnx.List(convs)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Normalised images (B, H, W, 3) to relu1 ... relu5, (B, h_k, w_k, widths[k]) in `dtype`.

        At 224 pixels the grids are 55, 27, 13, 13 and 13 wide.
        """
        taps = []
        for k, conv in enumerate(self.convs):
            if k in POOLED:
                x = nnx.max_pool(x, (3, 3), strides=(2, 2))
            x = nnx.relu(convolve(conv, x) if k else conv(x))
            taps.append(x)
        return taps
