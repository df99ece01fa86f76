"""All scores of a set of samples in one call, each beside the score of real images.

Distributions are compared with the held-out split, which neither the generator nor the feature
network has seen. The real-data baseline of these scores is as many training images in place of the
samples: what a perfect generator would get. That of class agreement and of the distance to the
nearest training image is the held-out images.
"""

import dataclasses
from functools import cached_property

import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float, Shaped

from sphere_jax.common.progress import log
from sphere_jax.data.array_checks import require_images
from sphere_jax.data.source import Source, Split
from sphere_jax.evaluation.features.base import Features
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.memorisation import memorisation, nearest_training_image, searchable
from sphere_jax.evaluation.neighbours import precision_recall
from sphere_jax.evaluation.pixel_classifier import (
    PixelClassifier,
    class_agreement,
    train_pixel_classifier,
)
from sphere_jax.evaluation.preconditions import Images
from sphere_jax.evaluation.statistics import Statistics

BATCH = 256  # images at once over all devices


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A data set made ready to score samples against: all that depends on it alone."""

    split: Split
    network: Features
    pixel_classifier: PixelClassifier | None  # None where there is one class
    heldout_features: Float[np.ndarray, "m f"]  # in random order
    heldout_statistics: Statistics
    sharding: NamedSharding | None = None  # of batches of images, on several devices
    distributions: dict[tuple[int, int], dict[str, float]] = dataclasses.field(default_factory=dict)

    @cached_property
    def heldout_distances(self) -> Float[np.ndarray, " m"]:
        """To the nearest training image."""
        train, heldout = self.split.train.arrays, self.split.heldout.arrays
        return nearest_training_image(heldout["images"], train["images"])[0]

    @cached_property
    def heldout_agreement(self) -> float:
        """Accuracy of the pixel classifier on the held-out images."""
        heldout = self.split.heldout.arrays
        return class_agreement(self.pixel_classifier, heldout["images"], heldout["labels"])[0]

    def real_distribution(self, count: int, neighbours: int) -> dict[str, float]:
        """What compares distributions, of `count` training images (or all, if there are fewer)."""
        if (count, neighbours) not in self.distributions:
            real = _some(self.split.train, count).arrays["images"]
            self.distributions[count, neighbours] = _distribution(self, real, neighbours)
        return dict(self.distributions[count, neighbours])


def prepare_reference(
    split: Split, network: Features, num_classes: int, sharding: NamedSharding | None = None
) -> Reference:
    """Features and statistics of the held-out split, and the pixel classifier fitted to the
    training split if there are classes to tell apart. `sharding` spreads features over a mesh.

    Raises:
      ValueError: wrong or too few images or labels.
    """
    train, heldout = split.train.arrays, split.heldout.arrays
    images = require_images(heldout["images"], "The held-out split", at_least=2)
    features = _features(network, images, sharding)
    shuffled = np.random.default_rng(0).permutation(features)  # files are often sorted by class
    classifier = None
    if num_classes > 1:
        classifier = train_pixel_classifier(train["images"], train["labels"], num_classes)
    return Reference(
        split=split,
        network=network,
        pixel_classifier=classifier,
        heldout_features=shuffled,
        heldout_statistics=Statistics.of(features),
        sharding=sharding,
    )


@dataclasses.dataclass(frozen=True)
class Score:
    """Named metrics of the samples, the same of real images, and agreement class by class."""

    metrics: dict[str, float]
    real_data: dict[str, float]
    agreement_by_class: list[float | None] | None  # None without labels
    samples: int


def score(
    reference: Reference,
    images: Images,
    labels: Shaped[np.ndarray, "..."] | None,
    neighbours: int = 3,
) -> Score:
    """Scores samples against a data set.

    Args:
      images: uint8 (N, H, W, C), at least `neighbours` + 1, the classes mixed: where there are more
        than held-out images, precision and recall are of the first ones.
      labels: (N,) the classes that samples were drawn for, or None for unconditional samples.
      neighbours: k of precision and recall.

    Returns:
      metrics and real_data with the keys frechet_distance_F, precision_F, recall_F (F is the
      network's name), nearest_train_distance_ratio, nearest_train_too_close (but for data sets that
      are too large to be searched) and, with labels and a pixel classifier, class_agreement.

    Raises:
      ValueError: wrong or too few images or labels.
    """
    images = require_images(images, "samples", at_least=max(2, neighbours + 1))
    train = reference.split.train

    metrics = _distribution(reference, images, neighbours)
    real = reference.real_distribution(len(images), neighbours)
    if searchable(len(images) + len(reference.split.heldout), train.arrays["images"]):
        distances, _ = nearest_training_image(images, train.arrays["images"])
        metrics |= memorisation(distances, reference.heldout_distances)
        real |= memorisation(reference.heldout_distances, reference.heldout_distances)
    else:
        log(
            f"distances to {len(train):,} training images are left out: hours to days of a "
            "processor core"
        )
    by_class = None
    if labels is not None and reference.pixel_classifier is not None:
        agreement, by_class = class_agreement(reference.pixel_classifier, images, labels)
        metrics["class_agreement"] = agreement
        real["class_agreement"] = reference.heldout_agreement
    return Score(metrics, real, by_class, len(images))


def point_of_curve(
    reference: Reference,
    images: Images,
    labels: Shaped[np.ndarray, "..."] | None,
    neighbours: int = 3,
) -> dict[str, float]:
    """The metrics of `score` that are quick enough for a score every so many steps: all but the
    distances to training images.

    Raises ValueError as `score` does.
    """
    images = require_images(images, "samples", at_least=max(2, neighbours + 1))
    metrics = _distribution(reference, images, neighbours)
    if labels is not None and reference.pixel_classifier is not None:
        agreement, _ = class_agreement(reference.pixel_classifier, images, labels)
        metrics["class_agreement"] = agreement
    return metrics


def curve_metrics(features: str) -> list[str]:
    """The keys that `point_of_curve` gives in the features of that name."""
    compared = ("frechet_distance", "precision", "recall", "class_agreement")
    return [curve_key(metric, features) for metric in compared]


def curve_key(metric: str, features: str) -> str:
    """The key of one of them, as "precision"."""
    return metric if metric == "class_agreement" else f"{metric}_{features}"


def _features(
    network: Features, images: Images, sharding: NamedSharding | None
) -> Float[np.ndarray, "n f"]:
    if sharding is None:
        return network.features(images)
    devices = sharding.mesh.devices.size
    return network.features(images, -(-BATCH // devices) * devices, sharding)


def _distribution(reference: Reference, images: Images, neighbours: int) -> dict[str, float]:
    """Frechet distance to the held-out split, and precision and recall against it."""
    name = reference.network.name
    features = _features(reference.network, images, reference.sharding)
    heldout = reference.heldout_features
    count = min(len(features), len(heldout))  # precision and recall compare sets of equal size
    near = precision_recall(heldout[:count], features[:count], neighbours)
    distance = frechet_distance_of(Statistics.of(features), reference.heldout_statistics)
    return {
        f"frechet_distance_{name}": distance,
        f"precision_{name}": near["precision"],
        f"recall_{name}": near["recall"],
    }


def _some(source: Source, count: int) -> Source:
    """`count` examples drawn with a fixed seed, or all if there are fewer."""
    rows = np.random.default_rng(0).permutation(len(source))[:count]
    return Source(source.read(rows))
