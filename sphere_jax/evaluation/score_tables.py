"""Scores and their protocol as tables, and what every metric is called."""

from collections.abc import Mapping, Sequence
from typing import Any

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.features.base import FeatureNetwork
from sphere_jax.evaluation.page import Table
from sphere_jax.evaluation.score import Score


def metrics_table(score: Score) -> Table:
    """Every metric beside that of real images, and how to read it."""
    rows = []
    for key, value in score.metrics.items():
        name, better = describe(key)
        rows.append([name, value, score.real_data[key], better])
    header = ["metric", f"{score.samples} samples", "real images"]
    return Table([*header, "better"], rows)


def agreement_table(score: Score, class_names: Sequence[str]) -> Table:
    """Class agreement of the samples, class by class. Needs a score of samples with labels."""
    return Table(["class", *class_names], [["agreement", *score.agreement_by_class]])


def protocol_table(protocol: Mapping[str, Any]) -> Table:
    """The stamp of `protocol.py`, nested groups written as one cell."""
    rows = [[key.replace("_", " "), value] for key, value in protocol.items()]
    return Table(["setting", "value"], rows)


def describe(key: str) -> tuple[str, str]:
    """A metric's key, as `score` gives it, in words; and which way is better."""
    fixed = {
        "nearest_train_distance_ratio": (
            "Distance to the nearest training image, over that of held-out images", "near 1"),
        "nearest_train_too_close": (
            "Part closer to a training image than 99% of held-out images", "near 0.01"),
        "class_agreement": ("Class agreement (by an RBF SVM on pixels)", "higher"),
    }  # fmt: skip
    if key in fixed:
        return fixed[key]
    starts = {
        "frechet_distance_": ("{distance}", "lower"),
        "precision_": ("Precision (generated inside real), {title} features", "higher"),
        "recall_": ("Recall (real inside generated), {title} features", "higher"),
    }
    for start, (words, better) in starts.items():
        if key.startswith(start):
            network = _feature_network(key.removeprefix(start))
            return words.format(distance=network.distance_title, title=network.title), better
    return key.replace("_", " "), ""


def _feature_network(name: str) -> FeatureNetwork:
    """That of the name at the end of a key; of an older file it may not exist any more."""
    try:
        return plugins.find("evaluation.features", "FEATURES", name, "features")
    except UserError:
        return FeatureNetwork(name)
