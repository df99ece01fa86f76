"""SigLIP 2 So400m/16 as FDr^6 has it: the network for 256 pixels, given 224; attention pooling."""

from typing import Any

from jaxtyping import Array, Float

from sphere_jax.evaluation.features.image_towers import ImageTower


class SigLIP2(ImageTower):
    """1152 features, which are the embedding that texts share."""

    weights = "siglip2_so400m16_256"

    @staticmethod
    def normalized(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        return images * 2 - 1

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        return {"features": module.pooled(x)}


FEATURES = SigLIP2("siglip2_so400m16")
