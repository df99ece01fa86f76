"""Published networks as features of images: Inception-v3 of the FID, EfficientNet-Lite0, DINO.

They offer what the small classifier does: `name`, `fingerprint`, `accuracy`, `image_shape` and
`features(images)`. A Fréchet distance in Inception's features, with its own resizing, is what the
field calls FID; in any other features it is not.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from sphere_jax.distribution.mesh import put_global, replicated, tree_shardings
from sphere_jax.evaluation.classifier import padded_batches
from sphere_jax.evaluation.feature_checks import check_images
from sphere_jax.models.efficientnet_lite import efficientnet_input
from sphere_jax.models.imagenet import normalize
from sphere_jax.models.inception import inception_input
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.resize import bicubic
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import fingerprint_of, load_weights

SIDE = 224  # of the images that all but Inception see


class Kind(NamedTuple):
    """How uint8 images (B, H, W, 3) become an input, and the output of the network features."""

    prepare: Callable[[jax.Array], jax.Array]
    read: Callable[[Any, jax.Array], jax.Array]


def lite_input(images: jax.Array) -> jax.Array:
    """As EfficientNet-Lite0 takes them, resized bicubically with antialiasing."""
    images = bicubic(images.astype(jnp.float32) / 127.5 - 1, SIDE, SIDE, antialias=True)
    return efficientnet_input(images)


def imagenet_input(images: jax.Array) -> jax.Array:
    """ImageNet-normalised at 224 pixels, resized bicubically with antialiasing."""
    images = bicubic(images.astype(jnp.float32), SIDE, SIDE, antialias=True)
    return normalize(jnp.clip(images / 255, 0, 1))


DINO = Kind(imagenet_input, lambda module, x: module(x).cls)
KINDS = {
    "inception_fid": Kind(inception_input, lambda module, x: module.features(x)["2048"]),
    "efficientnet_lite0": Kind(lite_input, lambda module, x: module.features(x)["pooled"]),
    "dinov2_vitb14_reg": DINO,
    "dinov2_vitl14_reg": DINO,
    "dinov3_vits16": DINO,
    "dinov3_vitb16": DINO,
}


@dataclasses.dataclass(frozen=True, eq=False)
class PublishedFeatures:
    """A network of `KINDS` with its weights, for images of one shape."""

    name: str
    fingerprint: str
    image_shape: tuple[int, int, int]
    network: Network
    params: Params
    accuracy: None = None  # not measured here

    @classmethod
    def load(
        cls, name: str, path: str, image_shape: tuple[int, int, int], dtype=jnp.float32
    ) -> "PublishedFeatures":
        """From a weights file, converted or as published; `dtype` is that of the products.

        Raises:
          UserError: the file is missing, damaged, or holds something else.
        """
        entry = catalogue()[name]
        network = entry.network(dtype=jnp.dtype(dtype))
        params = load_weights(path, name, network, entry.layouts)
        return cls(name, fingerprint_of(path), tuple(image_shape), network, params)

    def features(
        self, images: np.ndarray, batch_size: int = 64, sharding: NamedSharding | None = None
    ) -> np.ndarray:
        """uint8 (N, H, W, 1 or 3) to float32 (N, F); grey images are repeated.

        Batches are padded to one shape, so there is one compilation and the last batch is exact.
        `sharding` spreads a batch over a mesh, and the parameters with it; every process then gives
        all images and gets all features.

        Raises:
          ValueError: the images are not uint8 of `image_shape`.
        """
        images = check_images(images, "images")
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"Images must be {self.image_shape} here, not {images.shape[1:]}.")
        params, everywhere = self._placed(sharding), sharding and replicated(sharding.mesh)
        rows = []
        forward = _forward(self.network, self.name, everywhere)
        with jax.default_matmul_precision("float32"):  # scores are compared to the third digit
            for batch, mask in padded_batches(images, batch_size, f"{self.name} features"):
                rows.append(np.asarray(forward(params, jax.device_put(batch, sharding)))[mask])
        return np.concatenate(rows)

    def _placed(self, sharding: NamedSharding | None) -> Params:
        if sharding is None:
            return self._on_one_device
        shardings = tree_shardings(sharding.mesh, self.params)
        return put_global(sharding.mesh, self.params, shardings)

    @functools.cached_property
    def _on_one_device(self) -> Params:
        return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)), self.params)


@functools.cache  # compiled once
def _forward(network: Network, name: str, out_sharding) -> Callable:
    def forward(params: Params, images: jax.Array) -> jax.Array:
        images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        x = KINDS[name].prepare(images)
        found = KINDS[name].read(network.bind(params), x).astype(jnp.float32)
        if out_sharding is None:
            return found
        return jax.lax.with_sharding_constraint(found, out_sharding)

    return jax.jit(forward, compiler_options=quick_products())
