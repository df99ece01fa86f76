"""LPIPS v0.1 (1801.03924): a perceptual distance between two images."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.alexnet import AlexNet
from sphere_jax.models.vgg import VGG16
from sphere_jax.nn.norms import per_channel

# Of RGB in [-1, 1]; about ImageNet's statistics there.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

TRUNKS = {"vgg": VGG16, "alex": AlexNet}


class LPIPS(nnx.Module):
    """Squared differences of unit features, weighted by channel and averaged over the grid.

    Five maps of the trunk `net` take part. `widths` are the channels of the trunk, the published
    ones unless given; `dtype` is that of its products. Everything behind it is float32.
    """

    def __init__(
        self,
        net: Literal["vgg", "alex"],
        *,
        rngs: nnx.Rngs,
        widths: tuple[int, ...] | None = None,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.net = net
        options = {} if widths is None else {"widths": widths}
        self.trunk = TRUNKS[net](rngs=rngs, dtype=dtype, **options)
        positive = nnx.initializers.uniform(1.0)  # as trained heads are: a distance
        self.heads = nnx.List(
            nnx.Param(positive(rngs.params(), (width,), jnp.float32)) for width in self.trunk.widths
        )

    def features(self, images: jax.Array) -> list[jax.Array]:
        """RGB (B, H, W, 3) in [-1, 1] to five maps of unit vectors (B, h_k, w_k, C_k), float32.

        Raises:
          ValueError: other than 3 channels, or a side too short for the trunk.
        """
        _, height, width, channels = images.shape
        smallest = self.trunk.smallest_side
        if channels != 3:
            raise ValueError(f"LPIPS takes images of 3 channels, not {channels}.")
        if min(height, width) < smallest:
            raise ValueError(
                f"LPIPS ({self.net}) needs sides of at least {smallest} pixels, "
                f"not {height}x{width}."
            )
        shift, scale = (per_channel(jnp.array(v, jnp.float32), 4) for v in (SHIFT, SCALE))
        return [unit(x) for x in self.trunk((images.astype(jnp.float32) - shift) / scale)]

    def __call__(self, images: jax.Array, target: jax.Array) -> jax.Array:
        """RGB (B, H, W, 3) in [-1, 1], twice, to distances (B,) >= 0, float32.

        Raises ValueError as `features` does.
        """
        distance = jnp.zeros(images.shape[0], jnp.float32)
        pairs = zip(self.features(images), self.features(target), self.heads, strict=True)
        for x, y, head in pairs:
            weighted = (x - y) ** 2 * per_channel(head[...], 4)
            distance += jnp.mean(jnp.sum(weighted, axis=-1), axis=(1, 2))
        return distance


def unit(features: jax.Array) -> jax.Array:
    """`f / (|f| + 1e-10)` over the last axis, float32.

    Zero stays zero, with a finite gradient: ReLU leaves whole vectors at zero, where that of the
    original is NaN.
    """
    features = features.astype(jnp.float32)
    square = jnp.sum(features**2, axis=-1, keepdims=True)
    return features / (jnp.sqrt(jnp.where(square > 0, square, 1.0)) + 1e-10)
