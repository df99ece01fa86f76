"""The perceptual term of flow-sphere: mean absolute difference of VGG-16 features.

docs/systems/flow_sphere.md#losses. The network is the trunk of LPIPS-VGG, whose weights are
ImageNet's.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from sphere_jax.common.shapes import Images
from sphere_jax.losses.perceptual import rgb
from sphere_jax.models.imagenet import normalize
from sphere_jax.models.lpips import LPIPS
from sphere_jax.nn.functional import Network, Params
from sphere_jax.weights.layouts import lpips as lpips_weights
from sphere_jax.weights.stored import WeightsFile

SIDE = 64  # smaller images are enlarged to it
RELU3_3 = 2  # index among the trunk's maps


@dataclasses.dataclass(frozen=True)
class VGGFeatures:
    """Features up to relu3_3; `params` are those of LPIPS-VGG."""

    network: Network = dataclasses.field(
        default_factory=lambda: Network(lambda rngs: LPIPS("vgg", rngs=rngs))
    )

    def file(self, path: str) -> WeightsFile:
        """Where the parameters are."""
        return WeightsFile(path, "lpips_vgg16", self.network, lpips_weights.layouts)

    def distance(self, params: Params, images: Images, target: Images) -> Float32[Array, ""]:
        """`mean |F(a) - F(b)|` of float images in [-1, 1], (B, H, W, 1 or 3), a float32 scalar.

        Differentiable in both images, never in `params`.
        """
        trunk = self.network.bind(jax.lax.stop_gradient(params)).trunk
        a, b = (trunk(_prepared(x))[RELU3_3].astype(jnp.float32) for x in (images, target))
        return jnp.mean(jnp.abs(a - b))


def _prepared(images):
    x = normalize((rgb(images) + 1.0) / 2.0)
    batch, height, width, _ = x.shape
    if width >= SIDE:
        return x
    return jax.image.resize(x, (batch, SIDE * height // width, SIDE, 3), "bilinear")
