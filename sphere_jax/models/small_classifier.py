"""A small convolutional classifier whose last hidden layer serves as an image feature.

Nothing in it looks across the batch (norms over channels, no batch norm), so the features of an
image do not depend on its neighbours.
"""

import jax
import jax.numpy as jnp
from flax import nnx

FEATURES = 128  # length of the feature vector
SMALLEST_GRID = 4  # the grid is halved while its shorter side exceeds this


class SmallClassifier(nnx.Module):
    """Strided 3x3 convolutions down to a grid of about 4x4, max-pooled to one feature vector.

    Args:
      image_shape: (H, W, C).
      num_classes: K.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        height, width, channels = image_shape
        side, filters, convs, norms = min(height, width), 16, [], []
        while side > SMALLEST_GRID:
            convs.append(nnx.Conv(channels, filters, (3, 3), strides=2, rngs=rngs))
            norms.append(nnx.LayerNorm(filters, rngs=rngs))
            channels, filters, side = filters, min(2 * filters, FEATURES), -(-side // 2)
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.last = nnx.Conv(channels, FEATURES, (3, 3), rngs=rngs)
        self.head = nnx.Linear(FEATURES, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images (B, H, W, C) in [-1, 1] to features (B, 128) >= 0 and logits (B, K)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        features = jnp.max(nnx.relu(self.last(x)), axis=(1, 2))
        return features, self.head(features)
