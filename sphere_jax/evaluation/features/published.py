"""Published networks as features: those of `weights.catalogue`, with weights from a file."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, UInt8

from sphere_jax.data.array_checks import require_images
from sphere_jax.distribution.mesh import put_global, replicated, tree_shardings
from sphere_jax.evaluation.batches import padded_batches
from sphere_jax.evaluation.features.base import FeatureNetwork, Features, Shape
from sphere_jax.evaluation.preconditions import Images
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.precision import exact_products
from sphere_jax.weights.stored import fingerprint_of, load_weights

SIDE = 224  # pixels, of the images that all but Inception are given


class Published(FeatureNetwork):
    """The network of the same name in the catalogue: how images become its input, and its output
    features."""

    def prepare(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b y x 3"]:
        """Its input."""
        raise NotImplementedError

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> Float[Array, "b f"]:
        """The features that `module`, with its parameters, makes of its input."""
        raise NotImplementedError

    def classes(
        self, params: Params, features: Float32[np.ndarray, "n f"]
    ) -> Int[np.ndarray, " n"] | None:
        """The most likely ImageNet class of each image, if it has a classifier."""
        return None

    def load(
        self, path: str | os.PathLike, image_shape: Shape, dtype: DTypeLike = jnp.float32
    ) -> "PublishedFeatures":
        """From a weights file, converted or as published; `dtype` is that of the products.

        Raises:
          UserError: the file is missing, damaged, or holds something else.
        """
        from sphere_jax.weights.catalogue import catalogue  # all models: not to read a config

        entry = catalogue()[self.name]
        network = entry.network(dtype=jnp.dtype(dtype))
        params = load_weights(path, self.name, network, entry.layouts)
        return PublishedFeatures(self, fingerprint_of(path), tuple(image_shape), network, params)


@dataclasses.dataclass(frozen=True, eq=False)
class PublishedFeatures(Features):
    """A published network with its weights."""

    kind: Published
    fingerprint: str
    image_shape: Shape
    network: Network
    params: Params
    accuracy: None = None  # nothing was trained here

    @property
    def name(self) -> str:
        return self.kind.name

    def features(
        self, images: Images, batch_size: int = 64, sharding: NamedSharding | None = None
    ) -> Float32[np.ndarray, "n f"]:
        """Grey images are repeated in three channels. Batches are padded to one shape, so there is
        one compilation and the last batch is exact. On a mesh the parameters are spread, too."""
        images = require_images(images, "images")
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"Images must be {self.image_shape} here, not {images.shape[1:]}.")
        params, everywhere = self._placed(sharding), sharding and replicated(sharding.mesh)
        rows = []
        forward = _forward(self.network, self.kind, everywhere)
        for batch, mask in padded_batches(images, batch_size, f"{self.name} features"):
            rows.append(np.asarray(forward(params, jax.device_put(batch, sharding)))[mask])
        return np.concatenate(rows)

    def classes(self, features: Float32[np.ndarray, "n f"]) -> Int[np.ndarray, " n"] | None:
        return self.kind.classes(self.params, features)

    def _placed(self, sharding: NamedSharding | None) -> Params:
        if sharding is None:
            return self._on_one_device
        shardings = tree_shardings(sharding.mesh, self.params)
        return put_global(sharding.mesh, self.params, shardings)

    @functools.cached_property
    def _on_one_device(self) -> Params:
        return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)), self.params)


@functools.cache  # compiled once
def _forward(network: Network, kind: Published, out_sharding) -> Callable:
    def forward(params: Params, images: jax.Array) -> jax.Array:
        images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        with exact_products():
            found = kind.read(network.bind(params), kind.prepare(images)).astype(jnp.float32)
        if out_sharding is None:
            return found
        return jax.lax.with_sharding_constraint(found, out_sharding)

    return jax.jit(forward, compiler_options=quick_products())
