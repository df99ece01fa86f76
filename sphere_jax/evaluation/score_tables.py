"""Scores and their protocol as tables, and what every metric is called."""

from collections.abc import Mapping, Sequence
from typing import Any

from sphere_jax.evaluation.page import Table
from sphere_jax.evaluation.score import Score


def metrics_table(score: Score) -> Table:
    """Every metric beside that of real images, and how to read it."""
    rows = []
    for key, value in score.metrics.items():
        name, better = describe(key)
        rows.append([name, value, score.yardstick[key], better])
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
        "class_agreement": ("Class agreement (judge: RBF SVM on pixels)", "higher"),
        "frechet_distance_inception_fid": ("FID (Inception-v3, pytorch-fid's resizing)", "lower"),
    }  # fmt: skip
    if key in fixed:
        return fixed[key]
    starts = {
        "frechet_distance_": ("Fréchet distance", "lower"),
        "precision_": ("Precision (generated inside real)", "higher"),
        "recall_": ("Recall (real inside generated)", "higher"),
    }
    for start, (name, better) in starts.items():
        if key.startswith(start):
            return f"{name}, {key.removeprefix(start).replace('_', ' ')} features", better
    return key.replace("_", " "), ""
