"""One data set, classifier and reference for all tests of the package: scikit-learn's digits."""

import numpy as np
import pytest

from sphere_jax.config.options import DataOptions
from sphere_jax.data.source import Source, Split, load
from sphere_jax.evaluation.features.small_classifier import train_classifier
from sphere_jax.evaluation.score import prepare_reference


@pytest.fixture(scope="session")
def digits():
    split = load(DataOptions(source="digits", image_size=8))
    by_class = np.argsort(split.train.arrays["labels"], kind="stable")  # as many files are
    return Split(Source(split.train.read(by_class)), split.heldout)


@pytest.fixture(scope="session")
def classifier(digits):
    arrays = digits.train.arrays
    return train_classifier(arrays["images"], arrays["labels"], 10, steps=250)


@pytest.fixture(scope="session")
def reference(digits, classifier):
    return prepare_reference(digits, classifier, 10)
