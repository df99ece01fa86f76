"""Published networks as features: those of `weights.catalogue`, with weights from a file."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, UInt8

from sphere_jax.common.shapes import AnyArray
from sphere_jax.data.array_checks import require_images
from sphere_jax.distribution.mesh import put_global, replicated, tree_shardings
from sphere_jax.evaluation.batches import padded_batches
from sphere_jax.evaluation.features.base import FIRST, FeatureNetwork, Features, Shape
from sphere_jax.evaluation.preconditions import Images
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.precision import exact_products
from sphere_jax.weights.stored import fingerprint_of, load_weights

SIDE = 224  # pixels, of the images that all but Inception are given


class Published(FeatureNetwork):
    """A network of the catalogue: how images become its input, and its output features.

    options: of the network's module, hashable, where this use of it differs from the published one.
    """

    options: dict[str, Any] = {}

    def prepare(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b y x 3"]:
        """Its input."""
        raise NotImplementedError

    def read(self, module: Any, x: Float[Array, "b y x 3"]) -> dict[str, Float[Array, "b f"]]:
        """All `outputs` that `module`, with its parameters, makes of its input. It is compiled, so
        what is not asked for costs nothing."""
        raise NotImplementedError

    def classes(
        self, params: Params, features: Float32[np.ndarray, "n f"]
    ) -> Int[np.ndarray, " n"] | None:
        """The most likely ImageNet class of each image, if it has a classifier."""
        return None

    def load(
        self,
        path: str | os.PathLike,
        image_shape: Shape | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> "PublishedFeatures":
        """From a weights file, converted or as published; `dtype` is that of the products.

        Raises:
          UserError: the file is missing, damaged, or holds something else.
        """
        from sphere_jax.weights.catalogue import catalogue  # all models: not to read a config

        entry = catalogue()[self.weights]
        network = entry.network(dtype=jnp.dtype(dtype), **self.options)
        params = load_weights(path, self.weights, network, entry.layouts)
        shape = None if image_shape is None else tuple(image_shape)
        return PublishedFeatures(self, fingerprint_of(path), shape, network, params)


@dataclasses.dataclass(frozen=True, eq=False)
class PublishedFeatures(Features):
    """A published network with its weights."""

    kind: Published
    fingerprint: str
    image_shape: Shape | None
    network: Network
    params: Params
    accuracy: None = None  # nothing was trained here
    traceable: bool = True

    @property
    def name(self) -> str:
        return self.kind.name

    def features(
        self, images: Images, batch_size: int = 64, sharding: NamedSharding | None = None
    ) -> Float32[np.ndarray, "n f"]:
        """Grey images are repeated in three channels. Batches are padded to one shape, so there is
        one compilation and the last batch is exact. On a mesh the parameters are spread, too."""
        images = require_images(images, "images")
        if self.image_shape not in (None, images.shape[1:]):
            raise ValueError(f"Images must be {self.image_shape} here, not {images.shape[1:]}.")
        params, everywhere = self.placed(sharding), sharding and replicated(sharding.mesh)
        rows = []
        forward = _forward(self.network, self.kind, (FIRST,), everywhere)
        for batch, mask in padded_batches(images, batch_size, f"{self.name} features"):
            rows.append(np.asarray(forward(params, jax.device_put(batch, sharding))[FIRST])[mask])
        return np.concatenate(rows)

    def batch(
        self,
        images: UInt8[AnyArray, "b h w c"],
        names: Sequence[str] = (FIRST,),
        sharding: NamedSharding | None = None,
    ) -> dict[str, Float32[Array, "b ..."]]:
        if unknown := [name for name in names if name not in self.kind.outputs]:
            raise ValueError(
                f"{self.name} has no output '{unknown[0]}', but {', '.join(self.kind.outputs)}."
            )
        forward = _forward(self.network, self.kind, tuple(names), sharding)
        return forward(self.placed(sharding), jax.device_put(images, sharding))

    def batch_of_sizes(
        self,
        images: Sequence[UInt8[np.ndarray, "_h _w _c"]],
        names: Sequence[str] = (FIRST,),
        sharding: NamedSharding | None = None,
    ) -> dict[str, Float32[Array, "b ..."]]:
        prepare = _prepare(self.kind)
        inputs = [np.asarray(prepare(image[None]))[0] for image in images]
        if len({each.shape for each in inputs}) > 1:
            return super().batch_of_sizes(images, names, sharding)  # raises
        forward = _forward(self.network, self.kind, tuple(names), sharding, prepared=True)
        return forward(self.placed(sharding), jax.device_put(np.stack(inputs), sharding))

    def compute(
        self, params: Params, images: UInt8[Array, "b h w c"], names: Sequence[str]
    ) -> dict[str, Float32[Array, "b ..."]]:
        return _outputs(self.network, self.kind, tuple(names), params, images)

    def classes(self, features: Float32[np.ndarray, "n f"]) -> Int[np.ndarray, " n"] | None:
        return self.kind.classes(self.params, features)

    def placed(self, sharding: NamedSharding | None) -> Params:
        """The parameters on the devices of `sharding`; they are moved there once."""
        if sharding not in self._on_devices:
            if sharding is None:
                placed = jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)), self.params)
            else:
                shardings = tree_shardings(sharding.mesh, self.params)
                placed = put_global(sharding.mesh, self.params, shardings)
            self._on_devices.clear()  # not twice on a device
            self._on_devices[sharding] = placed
        return self._on_devices[sharding]

    @functools.cached_property
    def _on_devices(self) -> dict[NamedSharding | None, Params]:
        return {}


@functools.cache  # compiled once
def _forward(
    network: Network,
    kind: Published,
    names: tuple[str, ...],
    out_sharding: NamedSharding | None,
    prepared: bool = False,
) -> Callable[[Params, jax.Array], dict[str, jax.Array]]:
    """Of images, or of inputs that are `prepared`."""
    run = _output if prepared else _outputs

    def forward(params: Params, images: jax.Array) -> dict[str, jax.Array]:
        found = run(network, kind, names, params, images)
        if out_sharding is None:
            return found
        return jax.lax.with_sharding_constraint(found, out_sharding)

    return jax.jit(forward, compiler_options=quick_products())


@functools.cache  # compiled once for each size
def _prepare(kind: Published) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda images: _input(kind, images))


def _outputs(network, kind, names, params, images):
    return _output(network, kind, names, params, _input(kind, images))


def _input(kind, images):
    images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
    with exact_products():
        return kind.prepare(images)


def _output(network, kind, names, params, inputs):
    with exact_products():
        found = kind.read(network.bind(params), inputs)
    return {name: found[name].astype(jnp.float32) for name in names}
