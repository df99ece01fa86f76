"""CLIP ViT-L/14 of OpenAI at 224 pixels, with its own resizing."""

from typing import Any

from jaxtyping import Array, Float

from sphere_jax.evaluation.features.image_towers import ImageTower
from sphere_jax.models.clip import normalize


class CLIPFeatures(ImageTower):
    """The class token after the last norm, 1024; "embedding" is its projection, 768, as texts have
    it."""

    outputs = ("features", "embedding")
    whole, patch = True, 14
    normalized = staticmethod(normalize)

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        cls = module(x).cls
        return {"features": cls, "embedding": module.embeddings(cls)}


FEATURES = CLIPFeatures("clip_vitl14")
