import dataclasses
import json

import numpy as np
import pytest

from sphere_jax.data.source import Source, Split
from sphere_jax.evaluation.pixel_classifier import PixelClassifier
from sphere_jax.evaluation.protocol import protocol, with_current_keys
from sphere_jax.evaluation.score import point_of_curve, prepare_reference, score

DISTANCE = "frechet_distance_small_classifier"


def test_training_images_score_as_the_baseline_of_distributions(reference, digits):
    count = len(digits.heldout)
    rows = np.random.default_rng(0).permutation(len(digits.train))[:count]
    train = digits.train.read(rows)
    found = score(reference, train["images"], train["labels"])
    assert found.samples == count
    assert found.metrics.keys() == found.real_data.keys()
    for name in ("frechet_distance", "precision", "recall"):
        name = f"{name}_small_classifier"
        assert found.metrics[name] == pytest.approx(found.real_data[name], rel=1e-5), name
    assert found.metrics["nearest_train_distance_ratio"] == 0.0
    assert found.real_data["nearest_train_distance_ratio"] == 1.0
    assert found.real_data["precision_small_classifier"] > 0.7


def test_a_search_of_days_is_left_out(reference, digits, monkeypatch, capsys):
    heldout = digits.heldout.arrays
    whole = score(reference, heldout["images"], heldout["labels"])
    pairs = 2 * len(digits.heldout) * digits.train.arrays["images"].size
    for most, left_out in ((pairs, set()), (pairs - 1, {"distance_ratio", "too_close"})):
        monkeypatch.setattr("sphere_jax.evaluation.memorisation.MOST", most)
        found = score(reference, heldout["images"], heldout["labels"])
        gone = {f"nearest_train_{name}" for name in left_out}
        assert found.metrics == {k: v for k, v in whole.metrics.items() if k not in gone}
        assert found.real_data.keys() == found.metrics.keys()
        assert ("training images are left out" in capsys.readouterr().out) == bool(left_out)


def test_the_held_out_split_itself_is_at_distance_zero(reference, digits):
    heldout = digits.heldout.arrays
    found = score(reference, heldout["images"], heldout["labels"])
    assert found.metrics[DISTANCE] < 1e-4 < found.real_data[DISTANCE]
    assert found.metrics["class_agreement"] == found.real_data["class_agreement"]


def test_each_defect_changes_its_metric(reference, digits):
    train, heldout = digits.train.arrays, digits.heldout.arrays
    copied = score(reference, train["images"][:200], train["labels"][:200])
    assert copied.metrics["nearest_train_too_close"] == 1.0

    shifted = (heldout["labels"] + 1) % 10  # good images of the wrong class
    assert score(reference, heldout["images"], shifted).metrics["class_agreement"] < 0.05

    zeros = heldout["images"][heldout["labels"] == 0]  # one mode only
    collapsed = score(reference, zeros, np.zeros(len(zeros), np.int32))
    assert collapsed.metrics[DISTANCE] > 3 * collapsed.real_data[DISTANCE]
    assert collapsed.metrics["recall_small_classifier"] < 0.5
    assert collapsed.real_data["recall_small_classifier"] > 0.5

    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), np.uint8)
    nonsense = score(reference, noise, None)
    assert nonsense.metrics[DISTANCE] > 5 * nonsense.real_data[DISTANCE]
    assert nonsense.metrics["precision_small_classifier"] < 0.2


def test_real_images_are_classified_once(reference, digits, monkeypatch):
    train, classified = digits.train.read(np.arange(50)), []
    predict = PixelClassifier.predict
    monkeypatch.setattr(
        PixelClassifier,
        "predict",
        lambda self, images: classified.append(len(images)) or predict(self, images),
    )
    fresh = dataclasses.replace(reference)
    first, again = (score(fresh, train["images"], train["labels"]) for _ in range(2))
    assert classified == [50, len(digits.heldout), 50]
    assert first.real_data == again.real_data


def test_without_labels_there_is_no_agreement(reference, digits):
    found = score(reference, digits.heldout.arrays["images"][:50], None)
    assert "class_agreement" not in found.metrics and found.agreement_by_class is None
    assert found.samples == 50


def test_one_class_has_no_pixel_classifier(reference, digits):
    parts = (digits.train, digits.heldout)
    alike = [Source(p.arrays | {"labels": np.zeros(len(p), np.int32)}) for p in parts]
    one = prepare_reference(Split(*alike), reference.network, 1)
    images, labels = digits.heldout.arrays["images"][:50], np.zeros(50, np.int32)
    found = score(one, images, labels)
    assert "class_agreement" not in found.metrics and found.agreement_by_class is None
    assert "class_agreement" not in point_of_curve(one, images, labels)
    assert protocol(one, "digits", 50, 3, None)["pixel_classifier"] is None


def test_no_metric_is_called_fid(reference, digits):
    heldout = digits.heldout.arrays
    found = score(reference, heldout["images"][:50], heldout["labels"][:50])
    assert DISTANCE in found.metrics
    assert not [name for name in found.metrics if "fid" in name.lower()]


def test_too_few_or_wrong_samples_are_refused(reference, digits):
    images = digits.heldout.arrays["images"]
    with pytest.raises(ValueError, match="samples must hold at least 6 images, not 5"):
        score(reference, images[:5], None, neighbours=5)
    with pytest.raises(ValueError, match="samples must be uint8"):
        score(reference, images / 255.0, None)


def test_the_protocol_names_everything_a_number_depends_on(reference, digits):
    drawn = {"seed": 0, "evaluations": 74, "weights": "ema", "solver": "heun", "steps": 25}
    stamp = json.loads(json.dumps(protocol(reference, "digits", 50, 3, drawn)))
    assert stamp["features"]["fingerprint"] == reference.network.fingerprint
    assert stamp["reference"]["fingerprint"] == digits.heldout.fingerprint
    assert stamp["reference"]["images"] == len(digits.heldout)
    assert stamp["training_split"]["images"] == len(digits.train)
    assert stamp["samples"] == 50
    assert stamp["generation"]["evaluations"] == 74
    assert stamp["generation"]["weights"] == "ema"
    assert stamp["versions"].keys() >= {"sphere_jax", "jax", "flax", "numpy", "scikit-learn"}
    assert protocol(reference, "digits", 50, 3, None)["generation"] == "images from a file"


def test_scores_of_older_files_get_current_names():
    old = {
        "metrics": {"a": 1.0},
        "yardstick": {"a": 2.0},
        "protocol": {"judge": {"name": "svm"}, "samples": 3},
        "rows": [{"protocol": {"judge": None, "features": {"accuracy_on_images_set_aside": 1}}}],
    }
    assert with_current_keys(old) == {
        "metrics": {"a": 1.0},
        "real_data": {"a": 2.0},
        "protocol": {"pixel_classifier": {"name": "svm"}, "samples": 3},
        "rows": [{"protocol": {"pixel_classifier": None, "features": {"held_out_accuracy": 1}}}],
    }
