"""The image tower of OpenAI's CLIP (2103.00020): ViT-L/14 at 224 and at 336 pixels."""

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.dino import DINO
from sphere_jax.models.vit import SIZES
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.mlp import quick_gelu
from sphere_jax.nn.norms import per_channel

# The published networks, as arguments of `CLIP`.
KINDS = {
    name: dict(zip(("width", "depth", "heads"), SIZES["l"], strict=True)) | dict(grid=grid)
    for name, grid in (("clip_vitl14", 16), ("clip_vitl14_336", 24))
}
EMBEDDING = 768  # numbers, shared with texts

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)


class CLIP(DINO):
    """A vision transformer with a norm before its blocks, and a projection of its class token.

    `grid` is the number of patches of a side in training. On any other grid the positions are
    resized as in timm. `quick=False` takes GELU in place of `quick_gelu`: timm's models without
    "quickgelu" in their name do so with OpenAI's weights, which were trained with the other.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        grid: int,
        *,
        rngs: nnx.Rngs,
        patch: int = 14,
        embedding: int = EMBEDDING,
        quick: bool = True,
        dtype: jnp.dtype = jnp.float32,
    ):
        super().__init__(
            width,
            depth,
            heads,
            patch,
            grid,
            layer_scale=False,
            eps=1e-5,
            offset=0.0,
            antialias=True,
            activation=quick_gelu if quick else None,
            pre_norm=True,
            dtype=dtype,
            rngs=rngs,
        )
        self.projection = Linear(width, embedding, bias=False, rngs=rngs)

    def embeddings(self, cls: jax.Array) -> jax.Array:
        """Class tokens (B, width) behind the final norm to embeddings (B, embedding) as texts have
        them, not of unit length."""
        return self.projection(cls)


def normalize(images: jax.Array) -> jax.Array:
    """RGB (B, H, W, 3) in [0, 1] to mean zero and deviation one over CLIP's images, float32."""
    mean, std = (per_channel(jnp.asarray(values, jnp.float32), 4) for values in (MEAN, STD))
    return (images - mean) / std
