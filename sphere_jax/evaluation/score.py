"""All scores of a set of samples in one call, each beside a yardstick: the score of real images.

Distributions are compared with the held-out split, which neither the generator nor the feature
network has seen. Their yardstick is as many training images in place of the samples: the noise
floor, what a perfect generator would get. Class agreement and the distance to the nearest training
image have the held-out images as theirs.
"""

import dataclasses
from functools import cached_property

import numpy as np

from sphere_jax.common.progress import log
from sphere_jax.data.source import Source, Split
from sphere_jax.evaluation.classifier import Classifier
from sphere_jax.evaluation.feature_checks import check_images
from sphere_jax.evaluation.features import PublishedFeatures
from sphere_jax.evaluation.memorisation import (
    memorisation,
    nearest_training_image,
    searchable,
)
from sphere_jax.evaluation.metrics import frechet_distance_of, precision_recall
from sphere_jax.evaluation.pixel_classifier import Judge, class_agreement, train_judge
from sphere_jax.evaluation.statistics import Statistics


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A data set made ready to score samples against: all that depends on it alone."""

    split: Split
    network: Classifier | PublishedFeatures  # whose features are compared
    judge: Judge | None  # None where there is one class
    heldout_features: np.ndarray  # (M, F), in random order
    heldout_statistics: Statistics
    yardsticks: dict[tuple[int, int], dict[str, float]] = dataclasses.field(default_factory=dict)

    @cached_property
    def heldout_distances(self) -> np.ndarray:
        """(M,) to the nearest training image."""
        train, heldout = self.split.train.arrays, self.split.heldout.arrays
        return nearest_training_image(heldout["images"], train["images"])[0]

    @cached_property
    def heldout_agreement(self) -> float:
        """The judge's accuracy on the held-out images."""
        heldout = self.split.heldout.arrays
        return class_agreement(self.judge, heldout["images"], heldout["labels"])[0]

    def yardstick(self, count: int, neighbours: int) -> dict[str, float]:
        """What compares distributions, of `count` training images (or all, if there are fewer)."""
        if (count, neighbours) not in self.yardsticks:
            real = _some(self.split.train, count).arrays["images"]
            self.yardsticks[count, neighbours] = _distribution(self, real, neighbours)
        return dict(self.yardsticks[count, neighbours])


def prepare_reference(
    split: Split, network: Classifier | PublishedFeatures, num_classes: int
) -> Reference:
    """Features and statistics of the held-out split, and the judge fitted to the training split if
    there are classes to tell apart.

    Raises:
      ValueError: wrong or too few images or labels.
    """
    train, heldout = split.train.arrays, split.heldout.arrays
    features = network.features(check_images(heldout["images"], "The held-out split", at_least=2))
    shuffled = np.random.default_rng(0).permutation(features)  # files are often sorted by class
    judge = None
    if num_classes > 1:
        judge = train_judge(train["images"], train["labels"], num_classes)
    return Reference(
        split=split,
        network=network,
        judge=judge,
        heldout_features=shuffled,
        heldout_statistics=Statistics.of(features),
    )


@dataclasses.dataclass(frozen=True)
class Score:
    """Named metrics of the samples, the same of real images, and agreement class by class."""

    metrics: dict[str, float]
    yardstick: dict[str, float]
    agreement_by_class: list[float | None] | None  # None without labels
    samples: int


def score(
    reference: Reference, images: np.ndarray, labels: np.ndarray | None, neighbours: int = 3
) -> Score:
    """Scores samples against a data set.

    Args:
      images: uint8 (N, H, W, C), at least `neighbours` + 1, the classes mixed: where there are more
        than held-out images, precision and recall are of the first ones.
      labels: (N,) the classes that were asked for, or None for unconditional samples.
      neighbours: k of precision and recall.

    Returns:
      metrics and yardstick with the keys frechet_distance_F, precision_F, recall_F (F is the
      network's name), nearest_train_distance_ratio, nearest_train_too_close (but for data sets that
      are too large to be searched) and, with labels and a judge, class_agreement.

    Raises:
      ValueError: wrong or too few images or labels.
    """
    images = check_images(images, "samples", at_least=max(2, neighbours + 1))
    train = reference.split.train

    metrics = _distribution(reference, images, neighbours)
    yardstick = reference.yardstick(len(images), neighbours)
    if searchable(len(images) + len(reference.split.heldout), train.arrays["images"]):
        distances, _ = nearest_training_image(images, train.arrays["images"])
        metrics |= memorisation(distances, reference.heldout_distances)
        yardstick |= memorisation(reference.heldout_distances, reference.heldout_distances)
    else:
        log(
            f"distances to {len(train):,} training images are left out: hours to days of a "
            "processor core"
        )
    by_class = None
    if labels is not None and reference.judge is not None:
        metrics["class_agreement"], by_class = class_agreement(reference.judge, images, labels)
        yardstick["class_agreement"] = reference.heldout_agreement
    return Score(metrics, yardstick, by_class, len(images))


def point_of_curve(
    reference: Reference, images: np.ndarray, labels: np.ndarray | None, neighbours: int = 3
) -> dict[str, float]:
    """The metrics of `score` that are quick enough for a score every so many steps: all but the
    distances to training images.

    Raises ValueError as `score` does.
    """
    images = check_images(images, "samples", at_least=max(2, neighbours + 1))
    metrics = _distribution(reference, images, neighbours)
    if labels is not None and reference.judge is not None:
        metrics["class_agreement"], _ = class_agreement(reference.judge, images, labels)
    return metrics


def curve_metrics(features: str) -> list[str]:
    """The keys that `point_of_curve` gives in the features of that name."""
    compared = ("frechet_distance", "precision", "recall")
    return [*(f"{metric}_{features}" for metric in compared), "class_agreement"]


def _distribution(reference: Reference, images: np.ndarray, neighbours: int) -> dict[str, float]:
    """Frechet distance to the held-out split, and precision and recall against it."""
    name, features = reference.network.name, reference.network.features(images)
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
