"""A small classifier trained on the training split: image features that need no download.

Distances in its features compare runs on the same data. They are not FID, which means Inception
features, and they are not comparable across data sets; the fingerprint says which network it was.
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float32, Shaped, UInt8
from safetensors import SafetensorError, safe_open

from sphere_jax.common import files, fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.common.shapes import AnyArray
from sphere_jax.config.options import EvaluationOptions
from sphere_jax.data.array_checks import require_images, require_labels
from sphere_jax.distribution.mesh import replicated
from sphere_jax.evaluation.batches import padded_batches
from sphere_jax.evaluation.features.base import FeatureNetwork, Features, Shape
from sphere_jax.evaluation.preconditions import Images
from sphere_jax.models.small_classifier import SmallClassifier
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.pixels import to_float
from sphere_jax.nn.precision import exact_products
from sphere_jax.weights.stored import write_safetensors
from sphere_jax.weights.tensors import named_leaves, path_name

LEARNING_RATE = 3e-3
LARGEST_HELDOUT = 10_000  # held-out images whose accuracy is measured, at most
NAME = "small_classifier"
ADAM = optax.scale_by_adam()


class SmallClassifierFeatures(FeatureNetwork):
    """The 128 features of a classifier that every run trains on its own training split."""

    needs_weights = False
    needs_classes = True
    semantic = False
    outputs = ("features", "logits")
    file = "classifier.safetensors"

    def trained_with(self, evaluation: EvaluationOptions) -> int:
        return evaluation.classifier_steps

    def train(
        self,
        images: Images,
        labels: Shaped[np.ndarray, "..."],
        num_classes: int,
        evaluation: EvaluationOptions,
    ) -> "Classifier":
        return train_classifier(images, labels, num_classes, steps=evaluation.classifier_steps)

    def load(self, path: str | os.PathLike, image_shape: Shape | None = None) -> "Classifier":
        try:
            return Classifier.load(path)
        except ValueError as error:
            raise UserError(f"{error} Delete it to train it again.") from error


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier(Features):
    """A trained `SmallClassifier`.

    `accuracy` is that on the tenth of the training split that its training held out; `steps` are
    those of that training, None where a file does not contain them.
    """

    params: Params
    image_shape: Shape
    num_classes: int
    accuracy: float
    steps: int | None = None

    name = NAME

    @property
    def trained_with(self) -> int | None:
        return self.steps

    def features(
        self, images: Images, batch_size: int = 256, sharding: NamedSharding | None = None
    ) -> Float32[np.ndarray, "n 128"]:
        """Batches are padded to one shape, so there is one compilation and the last batch is exact.
        On a mesh the parameters are replicated.

        Raises:
          ValueError: the images are not uint8 of this classifier's shape.
        """
        return self._run(images, batch_size, sharding)[0]

    def batch(
        self,
        images: UInt8[AnyArray, "b h w c"],
        names: Sequence[str] = ("features",),
        sharding: NamedSharding | None = None,
    ) -> dict[str, Float32[Array, "b ..."]]:
        """As `Features.batch`; also "logits", of the K classes."""
        if unknown := set(names) - {"features", "logits"}:
            raise ValueError(f"{self.name} has no output '{min(unknown)}', but features, logits.")
        network = self._network_for(images.shape[1:])
        params = jax.device_put(self.params, sharding and replicated(sharding.mesh))
        found = _forward(network, sharding, params, jax.device_put(images, sharding))
        return {name: found[name == "logits"] for name in names}

    def logits(
        self, images: Images, batch_size: int = 256, sharding: NamedSharding | None = None
    ) -> Float32[np.ndarray, "n k"]:
        """Of the K classes, float32; otherwise like `features`."""
        return self._run(images, batch_size, sharding)[1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the weights."""
        return fingerprints.of_arrays(sorted(named_leaves(self.params).items()))

    def save(self, path: str | os.PathLike) -> None:
        """Writes one safetensors file; a reader never sees half of it."""
        about = {
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "accuracy": self.accuracy,
            "steps": self.steps,
            "fingerprint": self.fingerprint,
        }
        metadata = {self.name: json.dumps(files.sealed_object(about))}
        write_safetensors(path, named_leaves(self.params), metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Classifier":
        """What `save` wrote.

        Raises:
          ValueError: the file is no such thing, or not as it was written.
        """
        try:
            with safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {})[cls.name])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole = files.unsealed(about)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{os.fspath(path)} is not a saved small classifier.") from error
        if not whole:
            raise ValueError(f"What {os.fspath(path)} says of its weights has changed.")
        shape = tuple(about["image_shape"])
        expected = jax.eval_shape(_network(shape, about["num_classes"]).init, jax.random.key(0))
        if set(arrays) != set(named_leaves(expected)):
            raise ValueError(f"{os.fspath(path)} is a small classifier of another architecture.")
        params = jax.tree_util.tree_map_with_path(lambda p, _: arrays[path_name(p)], expected)
        classes, accuracy = about["num_classes"], about["accuracy"]
        loaded = cls(params, shape, classes, accuracy, about.get("steps"))
        if loaded.fingerprint != about["fingerprint"]:
            raise ValueError(f"The weights in {os.fspath(path)} do not match their fingerprint.")
        return loaded

    def _run(self, images, batch_size, sharding) -> tuple[np.ndarray, np.ndarray]:
        images = require_images(images, "images")
        network = self._network_for(images.shape[1:])
        everywhere = sharding and replicated(sharding.mesh)
        params, rows = jax.device_put(self.params, everywhere), []
        for batch, mask in padded_batches(images, batch_size, f"{self.name} features"):
            outputs = _forward(network, everywhere, params, jax.device_put(batch, sharding))
            rows.append([np.asarray(output)[mask] for output in outputs])
        features, logits = zip(*rows, strict=True)
        return np.concatenate(features), np.concatenate(logits)

    def _network_for(self, shape: Shape) -> Network:
        """Raises ValueError for images of another shape."""
        if tuple(shape) != self.image_shape:
            raise ValueError(
                f"This classifier takes images of shape {self.image_shape}, not {tuple(shape)}."
            )
        return _network(self.image_shape, self.num_classes)


def train_classifier(
    images: Images,
    labels: Shaped[np.ndarray, "..."],
    num_classes: int,
    *,
    seed: int = 0,
    steps: int = 300,
    batch_size: int = 64,
) -> Classifier:
    """Trains the feature network: Adam, cosine schedule, shifts by a 32nd of the side.

    Args:
      images: uint8 (N, H, W, 1 or 3), sides of at least 8 pixels; one tenth is held out.
      labels: (N,) in 0..num_classes-1.
      seed: fixes initial weights, the held-out part and the batches.

    Raises:
      ValueError: wrong or too few images or labels.
    """
    images = require_images(images, "The classifier's images", at_least=20)
    labels = require_labels(labels, len(images), "The classifier's labels", num_classes)
    if num_classes < 2:
        raise ValueError(f"A classifier needs at least 2 classes, not {num_classes}.")
    _, height, width, _ = images.shape
    if min(height, width) < 8:
        raise ValueError(f"The classifier needs sides of at least 8 pixels, not {height}x{width}.")

    rng = np.random.default_rng(seed)
    heldout, used = np.split(rng.permutation(len(images)), [len(images) // 10])
    reach = max(1, min(height, width) // 32)
    border = ((0, 0), (reach, reach), (reach, reach), (0, 0))

    network = _network(images.shape[1:], num_classes)
    params = jax.jit(network.init, compiler_options=run_once_options())(jax.random.key(seed))
    state = jax.jit(ADAM.init)(params)
    for step in range(steps):
        rows = rng.choice(used, batch_size)
        top, left = rng.integers(0, 2 * reach + 1, 2)
        padded = np.pad(images[rows], border, mode="edge")
        batch = padded[:, top : top + height, left : left + width]
        rate = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        params, state = _train_step(network, params, state, batch, labels[rows], rate)

    trained = Classifier(jax.device_get(params), images.shape[1:], num_classes, math.nan)
    heldout = heldout[:LARGEST_HELDOUT]
    accuracy = np.mean(trained.logits(images[heldout]).argmax(-1) == labels[heldout])
    return dataclasses.replace(trained, accuracy=float(accuracy), steps=steps)


@functools.cache  # one object per architecture, so that jitted functions find their compilation
def _network(image_shape: tuple[int, int, int], num_classes: int) -> Network:
    return Network(lambda rngs: SmallClassifier(image_shape, num_classes, rngs=rngs))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(network, out_sharding, params, images):
    with exact_products():
        outputs = network.apply(params, to_float(images))
    if out_sharding is None:
        return outputs
    return jax.lax.with_sharding_constraint(outputs, out_sharding)


@functools.partial(jax.jit, static_argnums=0)
def _train_step(network, params, state, images, labels, rate):
    def loss(params):
        _, logits = network.apply(params, to_float(images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    with exact_products():  # a part of the scores, and not a network that a run trains for itself
        direction, state = ADAM.update(jax.grad(loss)(params), state)
    return jax.tree.map(lambda p, d: p - rate * d, params, direction), state


FEATURES = SmallClassifierFeatures(NAME)
