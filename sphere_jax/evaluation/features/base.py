"""What a feature network is: it maps images to vectors, whose distributions scores compare.

A feature network is one file of this folder, found by its name: `config.evaluation.features =
"inception_fid"` is `FEATURES` of `inception_fid.py`; a name with a dot is a module of another
package. Nothing outside that file knows it.
"""

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float32, Int, Shaped, UInt8

from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import AnyArray
from sphere_jax.config.options import EvaluationOptions
from sphere_jax.evaluation.preconditions import Images

Shape = tuple[int, int, int]  # of an image: H, W, C
FIRST = "features"  # the output that every network has


class Features:
    """A feature network with its weights.

    name: that of its `FeatureNetwork`; the keys of scores end in it.
    fingerprint: of its weights, 16 hex digits.
    image_shape: (H, W, C) of the images that `features` takes; None where any one shape will do.
    accuracy: on images that its training here held out; None where nothing was trained here.
    trained_with: where it was trained here, what `FeatureNetwork.trained_with` gave then; None of a
      file that does not contain it.
    traceable: it has `placed` and `compute`.
    """

    name: str
    fingerprint: str
    image_shape: Shape | None
    accuracy: float | None
    trained_with: int | None
    traceable: bool = False

    def features(
        self, images: Images, batch_size: int = 64, sharding: NamedSharding | None = None
    ) -> Float32[np.ndarray, "n f"]:
        """One vector an image, float32; it depends neither on the batch nor on the mesh.

        `sharding` spreads a batch over a mesh; every process then gives all images and gets all
        features.

        Raises:
          ValueError: the images are not uint8 of `image_shape`.
        """
        raise NotImplementedError

    def batch(
        self,
        images: UInt8[AnyArray, "b h w c"],
        names: Sequence[str] = (FIRST,),
        sharding: NamedSharding | None = None,
    ) -> dict[str, Float32[Array, "b ..."]]:
        """The named outputs of one batch, float32, on the device: one jitted program.

        `images` are of any one size, on the host (every process then gives the same) or already on
        the devices. `sharding` spreads them over a mesh by rows, and the outputs with them. There
        is one compilation for each shape of `images`, so batches should have one size.

        Raises:
          ValueError: the network has no such output, or takes no images of this shape.
        """
        if tuple(names) != (FIRST,):
            raise ValueError(f"{self.name} has no output but '{FIRST}': {', '.join(names)}.")
        found = self.features(np.asarray(images), len(images), sharding)
        return {FIRST: jax.device_put(jnp.asarray(found), sharding)}

    def placed(self, sharding: NamedSharding) -> Any:
        """The parameters on the devices of `sharding`, for `compute`; where it is `traceable`."""
        raise NotImplementedError

    def compute(
        self, params: Any, images: UInt8[Array, "b h w c"], names: Sequence[str]
    ) -> dict[str, Float32[Array, "b ..."]]:
        """`batch` as a pure function of `params`, for use inside another compiled program; where
        it is `traceable`."""
        raise NotImplementedError

    def batch_of_sizes(
        self,
        images: Sequence[UInt8[np.ndarray, "_h _w _c"]],
        names: Sequence[str] = (FIRST,),
        sharding: NamedSharding | None = None,
    ) -> dict[str, Shaped[Array, "b ..."]]:
        """`batch` of images of different sizes, each brought to the network's input by itself.

        Raises:
          UserError: its input depends on the size of the images.
        """
        raise UserError(f"{self.name} takes images of one size at a time; give --size.")

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file that `FeatureNetwork.load` reads, where the network was trained here.
        Raises UserError."""
        raise NotImplementedError

    def classes(self, features: Float32[np.ndarray, "n f"]) -> Int[np.ndarray, " n"] | None:
        """The most likely class of each image; None for a network without a classifier."""
        return None


class FeatureNetwork:
    """The facts of a feature network, known before anything is loaded, and how to load it.

    name: as `config.evaluation.features` has it.
    needs_weights: its weights come from `config.evaluation.pretrained`; else `train` makes them.
    weights: whose weights, as files that `sphere_jax.convert` wrote name them: several networks may
      share a file. By default those of `name`.
    needs_classes: training needs labels of at least two classes.
    semantic: the cosine of two images' features tells whether they show the same thing.
    outputs: what `Features.batch` gives by name; "features" is first, and what `features` gives.
    stored_as: of outputs whose statistics other tools store, what the names of the arrays `mu` and
      `sigma` end in.
    """

    needs_weights = True
    needs_classes = False
    semantic = True
    outputs: tuple[str, ...] = (FIRST,)
    stored_as: Mapping[str, str] = MappingProxyType({})

    weights: str = ""

    def __init__(self, name: str):
        self.name, self.weights = name, self.weights or name

    @property
    def title(self) -> str:
        """The network in words."""
        return self.name.rpartition(".")[2].replace("_", " ")

    @property
    def distance_title(self) -> str:
        """What the Fréchet distance in its features is called. It is FID for Inception alone."""
        return f"Fréchet distance, {self.title} features"

    def load(self, path: str | os.PathLike, image_shape: Shape | None = None) -> Features:
        """With the weights of a file, for images of this shape, or of any.

        Raises:
          UserError: the file holds something else.
        """
        raise NotImplementedError

    # Of a network that is trained here, not loaded:

    @property
    def file(self) -> str:
        """Name of the file in a run's folder that caches its weights."""
        return f"{self.name}.safetensors"

    def trained_with(self, evaluation: EvaluationOptions) -> int | None:
        """The options that its training depends on: of others, a cached file is trained again."""
        return None

    def train(
        self,
        images: Images,
        labels: Shaped[np.ndarray, "..."],
        num_classes: int,
        evaluation: EvaluationOptions,
    ) -> Features:
        """Trained on images and labels (N,) in 0..num_classes-1. Raises ValueError for too few."""
        raise NotImplementedError
