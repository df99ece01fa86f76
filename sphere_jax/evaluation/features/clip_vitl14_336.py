"""CLIP ViT-L/14 at 336 pixels, as CMMD has it (2401.09603): resized in floats, embeddings of unit
length."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from sphere_jax.evaluation.features.clip_vitl14 import CLIPFeatures


class CLIP336(CLIPFeatures):
    """The embedding, 768 numbers of unit length."""

    outputs = ("features",)
    side, whole = 336, False

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        embedding = module.embeddings(module(x).cls)
        return {"features": embedding / jnp.linalg.norm(embedding, axis=-1, keepdims=True)}


FEATURES = CLIP336("clip_vitl14_336")
