"""Distances between decoded images: PSNR, and LPIPS and features where their weights are given."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.data.pipeline import map_batched
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.evaluation.features.base import FeatureNetwork, Features
from sphere_jax.evaluation.reconstruction import psnr
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.pixels import to_float
from sphere_jax.nn.precision import exact_products
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import fingerprint_of, load_weights

Scores = dict[str, np.ndarray]  # measure -> one number an image


class Perceptual(NamedTuple):
    """LPIPS with its weights."""

    name: str
    fingerprint: str
    network: Network
    params: Params


class Pictures(NamedTuple):
    """Decoded images uint8 (N, H, W, C); their features (N, F), or None without a network."""

    images: np.ndarray
    features: np.ndarray | None = None

    def __getitem__(self, rows) -> "Pictures":
        return Pictures(self.images[rows], None if self.features is None else self.features[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The distances of two sets of images; those that are None are left out."""

    lpips: Perceptual | None
    semantic: Features | None
    mesh: jax.sharding.Mesh
    batch_size: int

    @classmethod
    def load(
        cls, lpips: str, name: str, path: str, image_shape: tuple[int, int, int], mesh, batch: int
    ) -> "Comparison":
        """For images of one shape: `lpips` and `path` are files, or "" for none.

        Raises:
          UserError: `name` has no features here, a file holds something else, or the images are too
            small.
        """
        devices = mesh.devices.size
        return cls(
            load_perceptual(lpips, image_shape) if lpips else None,
            semantic_network(name).load(path, image_shape) if path else None,
            mesh,
            -(-batch // devices) * devices,
        )

    @property
    def networks(self) -> dict[str, str]:
        """Which network each distance is of, or which flag it needs."""
        slots = (
            ("LPIPS", self.lpips, "--lpips"),
            ("semantic distance", self.semantic, "--features"),
        )
        return {
            what: f"{net.name}, weights {net.fingerprint}" if net else f"left out, no {flag}"
            for what, net, flag in slots
        }

    def with_features(self, images: np.ndarray) -> Pictures:
        """Images with their features, if there is a network for them."""
        if self.semantic is None:
            return Pictures(images)
        sharding = batch_sharding(self.mesh)
        return Pictures(images, self.semantic.features(images, self.batch_size, sharding))

    def __call__(self, x: Pictures, y: Pictures) -> Scores:
        """One number an image, (N,) each.

        "psnr" (dB), "error" (root mean square of the difference of pixels in [0, 1]), "lpips",
        "semantic" (one minus the cosine of the features) and "agreement" (1 where the most likely
        ImageNet class is the same, of networks that have one).
        """
        found = {"psnr": self._map(psnr, x, y)}
        found["error"] = 10.0 ** (-found["psnr"] / 20.0)
        if self.lpips is not None:
            found["lpips"] = self._map(self._perceptual, x, y)
        if x.features is not None and y.features is not None:
            found["semantic"] = np.maximum(1.0 - cosine(x.features, y.features), 0.0)
            classes = [self.semantic.classes(pictures.features) for pictures in (x, y)]
            if classes[0] is not None:
                found["agreement"] = (classes[0] == classes[1]).astype(np.float64)
        return found

    def _map(self, function: Callable, x: Pictures, y: Pictures) -> np.ndarray:
        arrays, sharding = (x.images, y.images), batch_sharding(self.mesh)
        return map_batched(function, arrays, self.batch_size, sharding).astype(np.float64)

    def _perceptual(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return _lpips(self.lpips.network, self.lpips.params, x, y)


def semantic_network(name: str) -> FeatureNetwork:
    """The feature network of that name. Raises UserError if its cosine is no semantic distance."""
    features = ("evaluation.features", "FEATURES")
    found = plugins.find(*features, name, "--features")
    if not found.semantic:
        others = (
            plugins.find(*features, other, "--features") for other in plugins.known(*features)
        )
        raise UserError(
            f"--features={name} gives no distance of two images; give one of "
            f"{', '.join(other.name for other in others if other.semantic)}."
        )
    return found


def load_perceptual(path: str, image_shape: tuple[int, int, int]) -> Perceptual:
    """LPIPS on AlexNet or on VGG-16, whichever the file holds.

    Raises:
      UserError: it holds neither, or the images are too small for it.
    """
    for name in ("lpips_alexnet", "lpips_vgg16"):
        entry = catalogue()[name]
        network = entry.network()
        try:
            params = load_weights(path, name, network, entry.layouts)
        except UserError:
            if name == "lpips_vgg16" or not Path(path).is_file():
                raise
            continue
        least = network.module.trunk.smallest_side
        if min(image_shape[:2]) < least:
            raise UserError(
                f"--lpips={path} needs images of at least {least} pixels; config.data.image_size "
                f"is {image_shape[0]}."
            )
        params = jax.tree.map(np.asarray, params)
        return Perceptual(name, fingerprint_of(path), network, params)


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the rows of (N, F), in float64."""
    x, y = (v.astype(np.float64) for v in (x, y))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.sum(x * y, axis=1) / np.maximum(lengths, 1e-30)


def _lpips_of(network: Network, params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    rgb = (jnp.broadcast_to(to_float(v), (*v.shape[:-1], 3)) for v in (x, y))
    with exact_products():
        return network.apply(params, *rgb)


_lpips = jax.jit(_lpips_of, static_argnums=0)
