"""What the forms of Inception-v3 share: one file of weights, three ways to resize.

Published distances and scores differ by the resizing alone, so each is a network of its own.
"""

from typing import Any

from jaxtyping import Array, Float, UInt8

from sphere_jax.evaluation.features.published import Published
from sphere_jax.models.inception import inception_input


class InceptionFeatures(Published):
    """The 2048 features before the classifier; of sFID the 2023 numbers (17, 17, 7) of
    TensorFlow's mixed_6/conv; of the Inception Score the 1008 logits without their bias.

    `resize` is that of `inception_input`.
    """

    outputs = ("features", "spatial", "logits")
    stored_as = {"features": "", "spatial": "_s"}  # by pytorch-fid and ADM
    semantic = False  # published for distributions, not for pairs of images
    weights = "inception_fid"

    def __init__(self, name: str, resize: str, whose: str):
        super().__init__(name)
        self.resize, self.whose = resize, whose

    @property
    def distance_title(self) -> str:
        return f"FID (Inception-v3, {self.whose} resizing)"

    def prepare(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b y x 3"]:
        return inception_input(images, self.resize)

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        found = module.features(x)
        spatial = found["spatial"].reshape(len(x), -1)  # places first, as in TensorFlow
        return {
            "features": found["2048"],
            "spatial": spatial,
            "logits": found["logits_unbiased"],
        }
