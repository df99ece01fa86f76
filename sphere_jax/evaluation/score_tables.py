"""Scores and their protocol as tables, and what every metric is called."""

from collections.abc import Mapping, Sequence
from typing import Any

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.features.base import FeatureNetwork
from sphere_jax.evaluation.page import Table
from sphere_jax.evaluation.score import Score

QUALIFIED = ("precision_", "recall_")  # metrics that `remark_of` qualifies
WEAK = 0.9  # held-out accuracy below which a feature network is weak
FEW = 1000  # images on each side, below which precision and recall are of few


def metrics_table(score: Score, remark: str = "") -> Table:
    """Every metric beside that of real images, and how to read it; `remark` is `remark_of`."""
    rows = []
    for key, value in score.metrics.items():
        name, _ = describe(key)
        rows.append([name, value, score.real_data[key], reading(key, remark)])
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
        "nearest_distance_ratio": (
            "Distance to the nearest reference image, over that within the reference", "near 1"),
        "nearest_too_close": (
            "Part closer to a reference image than 99% of the reference to the rest", "near 0.01"),
        "class_agreement": ("Class agreement (by an RBF SVM on pixels)", "higher"),
    }  # fmt: skip
    ends = {"_raw": "raw weights", "_ema": "averaged weights"}  # of scores while a stage trains
    for end, weights in ends.items():
        if key.endswith(end):
            words, better = describe(key.removesuffix(end))
            return f"{words}, {weights}", better
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


def remark_of(*protocols: Mapping[str, Any]) -> str:
    """Why precision and recall under these protocols say little; "" if nothing is known against
    them.

    In weak features, images that look like nothing can lie inside the real ones, so that precision
    is above that of real data; of few images, both are noisy.
    """
    features = [protocol.get("features") or {} for protocol in protocols]
    compared = [protocol.get("precision_recall") or {} for protocol in protocols]
    known = [f.get("held_out_accuracy") for f in features]
    accuracies = [accuracy for accuracy in known if accuracy is not None]
    images = [c["images_on_each_side"] for c in compared if "images_on_each_side" in c]
    remarks = []
    if accuracies and min(accuracies) < WEAK:
        remarks.append(f"weak features (held-out accuracy {100 * min(accuracies):.0f} %)")
    if images and min(images) < FEW:
        remarks.append(f"few images ({min(images)})")
    return ", ".join(remarks)


def reading(key: str, remark: str = "") -> str:
    """How to read a metric: which way is better and, of precision and recall, the remark."""
    better = describe(key)[1]
    return f"{better}; {remark}" if remark and key.startswith(QUALIFIED) else better


def _feature_network(name: str) -> FeatureNetwork:
    """That of the name at the end of a key; of an older file it may not exist any more."""
    try:
        return plugins.find("evaluation.features", "FEATURES", name, "features")
    except UserError:
        return FeatureNetwork(name)


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `evaluate` returns, for a screen: each value with the counts it is of, then remarks."""
    said = []
    for facts in found["protocol"]["measures"]:
        counts = [(facts.get("samples"), "samples"), (facts.get("reference"), "reference images")]
        of = ", ".join(f"{count:,} {what}" for count, what in counts if count is not None)
        for key in facts["keys"]:
            spread = "standard_error" in key or "_std" in key  # of the value above it
            near = describe(key)[1]  # of a value that is neither to be low nor high
            better = near if near.startswith("near ") else f"{facts['better']} is better"
            reads = "" if spread else f"{better}; "
            said.append(f"{key:<40} {found['metrics'][key]:12.6g}   {reads}{of}")
    return said + [f"remark: {remark}" for remark in found["remarks"]]
