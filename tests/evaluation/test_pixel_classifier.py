import numpy as np
import pytest
from sklearn.svm import SVC

from sphere_jax.evaluation.pixel_classifier import class_agreement, train_pixel_classifier


def test_it_knows_held_out_digits(reference, digits):
    heldout = digits.heldout.arrays
    overall, by_class = class_agreement(
        reference.pixel_classifier, heldout["images"], heldout["labels"]
    )
    assert overall > 0.95
    assert len(by_class) == 10 and min(by_class) > 0.8


def test_it_is_the_rbf_svm_of_scikit_learn(reference, digits, monkeypatch):
    train, heldout = digits.train.arrays, digits.heldout.arrays
    machine = SVC(C=10.0, kernel="rbf", gamma="scale")
    machine.fit(train["images"].reshape(-1, 64) / 255.0, train["labels"])
    expected = machine.predict(heldout["images"].reshape(-1, 64) / 255.0)
    np.testing.assert_array_equal(reference.pixel_classifier.predict(heldout["images"]), expected)
    monkeypatch.setattr("sphere_jax.evaluation.pixel_classifier.BATCH", 100)  # and in parts
    np.testing.assert_array_equal(reference.pixel_classifier.predict(heldout["images"]), expected)


def test_agreement_counts_the_given_labels_class_by_class(reference, digits):
    train = digits.train.arrays  # which the classifier has learnt by heart
    images = np.concatenate([train["images"][train["labels"] == c][:4] for c in (0, 1, 2)])
    labels = np.array([0] * 4 + [1, 1, 7, 7] + [7] * 4)
    overall, by_class = class_agreement(reference.pixel_classifier, images, labels)
    assert overall == 6 / 12
    assert by_class[:3] == [1.0, 1.0, None] and by_class[7] == 0.0


def test_large_sets_are_drawn_from_by_seed(digits, monkeypatch):
    monkeypatch.setattr("sphere_jax.evaluation.pixel_classifier.LARGEST_SET", 200)
    train = digits.train.arrays
    fitted = [
        train_pixel_classifier(train["images"], train["labels"], 10, seed=s) for s in (0, 0, 1)
    ]
    assert len(fitted[0].pixels) == 200
    np.testing.assert_array_equal(fitted[0].pixels, fitted[1].pixels)
    assert not np.array_equal(fitted[0].pixels, fitted[2].pixels)


def test_errors_name_what_is_wrong(reference):
    images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="at least 2 classes"):
        train_pixel_classifier(images, labels, 10)
    with pytest.raises(ValueError, match="one flat colour"):
        train_pixel_classifier(images, np.arange(4), 10)
    with pytest.raises(ValueError, match="takes images of shape"):
        reference.pixel_classifier.predict(images[:, :4])
    with pytest.raises(ValueError, match="must be 4 integer labels"):
        class_agreement(reference.pixel_classifier, images, labels.astype(float))
