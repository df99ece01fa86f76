"""All scores of a set of samples in one call, each beside the same score of held-out images.

The held-out row is the yardstick: what a perfect generator would get, at the same sample count,
against the same training split. A Frechet distance at the held-out one is at the noise floor.
"""

import dataclasses

import numpy as np

from sphere_jax.data.sources import Source, Split
from sphere_jax.evaluation.checks import check_images
from sphere_jax.evaluation.classifier import Classifier
from sphere_jax.evaluation.judge import Judge, class_agreement, train_judge
from sphere_jax.evaluation.memorisation import memorisation, nearest_training_image
from sphere_jax.evaluation.metrics import frechet_distance_of, precision_recall
from sphere_jax.evaluation.statistics import Statistics


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A data set made ready to score samples against: all that depends on it alone."""

    split: Split
    network: Classifier  # whose features are compared
    judge: Judge
    train_features: np.ndarray  # (N, F), in random order
    train_statistics: Statistics
    heldout_distances: np.ndarray  # (M,) to the nearest training image


def prepare_reference(split: Split, network: Classifier, num_classes: int) -> Reference:
    """Features and statistics of the training split, and the judge fitted to it.

    Raises:
      ValueError: wrong or too few images or labels.
    """
    train, heldout = split.train.arrays, split.heldout.arrays
    features = network.features(train["images"])
    shuffled = np.random.default_rng(0).permutation(features)  # files are often sorted by class
    return Reference(
        split=split,
        network=network,
        judge=train_judge(train["images"], train["labels"], num_classes),
        train_features=shuffled,
        train_statistics=Statistics.of(features),
        heldout_distances=nearest_training_image(heldout["images"], train["images"])[0],
    )


@dataclasses.dataclass(frozen=True)
class Score:
    """Named metrics of the samples, the same of held-out images, and agreement class by class."""

    metrics: dict[str, float]
    yardstick: dict[str, float]
    agreement_by_class: list[float | None] | None  # None without labels
    samples: int
    yardstick_images: int


def score(
    reference: Reference, images: np.ndarray, labels: np.ndarray | None, neighbours: int = 3
) -> Score:
    """Scores samples against a data set.

    Args:
      images: uint8 (N, H, W, C), at least `neighbours` + 1.
      labels: (N,) the classes that were asked for, or None for unconditional samples.
      neighbours: k of precision and recall.

    Returns:
      metrics and yardstick with the keys frechet_distance_F, precision_F, recall_F (F is the
      network's name), nearest_train_distance_ratio, nearest_train_too_close and, with labels,
      class_agreement. The yardstick takes as many held-out images as there are samples, or all.

    Raises:
      ValueError: wrong or too few images or labels.
    """
    enough = max(2, neighbours + 1)
    images = check_images(images, "samples", at_least=enough)
    heldout = _some(reference.split.heldout, len(images))
    check_images(heldout.arrays["images"], "The held-out split", at_least=enough)
    metrics, by_class = _measure(reference, images, labels, neighbours)
    true_labels = None if labels is None else heldout.arrays["labels"]
    yardstick, _ = _measure(reference, heldout.arrays["images"], true_labels, neighbours)
    return Score(metrics, yardstick, by_class, len(images), len(heldout))


def _measure(reference: Reference, images, labels, neighbours):
    name, features = reference.network.name, reference.network.features(images)
    train = reference.train_features
    count = min(len(features), len(train))  # precision and recall compare sets of equal size
    near = precision_recall(train[:count], features[:count], neighbours)
    distances, _ = nearest_training_image(images, reference.split.train.arrays["images"])
    metrics = {
        f"frechet_distance_{name}": frechet_distance_of(
            Statistics.of(features), reference.train_statistics
        ),
        f"precision_{name}": near["precision"],
        f"recall_{name}": near["recall"],
        **memorisation(distances, reference.heldout_distances),
    }
    if labels is None:
        return metrics, None
    agreement, by_class = class_agreement(reference.judge, images, labels)
    return metrics | {"class_agreement": agreement}, by_class


def _some(source: Source, count: int) -> Source:
    """`count` examples drawn with a fixed seed, or all if there are fewer."""
    rows = np.random.default_rng(0).permutation(len(source))[:count]
    return Source(source.read(rows))
