"""ConvNeXt V2-B at 224 pixels, as FDr^6 has it: the mean over places of the last stage."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from sphere_jax.evaluation.features.image_towers import ImageTower


class ConvNeXtV2(ImageTower):
    """1024 features; "logits" are those of its ImageNet classifier."""

    outputs = ("features", "logits")

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        pooled = jnp.mean(module.features(x)[-1].astype(jnp.float32), axis=(1, 2))
        return {"features": pooled, "logits": module.head(module.norm(pooled))}


FEATURES = ConvNeXtV2("convnextv2_base")
