"""Fingerprints keep the values that older run folders, caches and weights files hold."""

import jax
import ml_dtypes
import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.common import fingerprints
from sphere_jax.data.source import Source
from sphere_jax.evaluation.features.small_classifier import Classifier
from sphere_jax.studies.comparing.matched import digest
from sphere_jax.weights.stored import fingerprint

# All values were computed by the code before there was `common/fingerprints.py`.


def test_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 5000)
    assert fingerprints.of_file(tmp_path / "file") == "7d471e4af16db5a3"
    assert len(fingerprints.of_file(tmp_path / "file", digits=64)) == 64
    assert "none cannot be read" in refusal_of(fingerprints.of_file, tmp_path / "none")


def test_of_a_text():
    assert fingerprints.of_text("a text") == "734194ede5b063e6"


def test_of_a_data_set_of_more_rows_than_are_read_at_once():
    rows = np.arange(9000 * 3, dtype=np.float32).reshape(9000, 3)
    labels = np.arange(9000, dtype=np.int32) % 7
    assert Source({"latents": rows, "labels": labels}).fingerprint == "7a0086a6331a4ea8"


def test_of_weights():
    tensors = {
        "b/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        "a/scale": np.float32(3.0),
        "c": np.arange(5).astype(ml_dtypes.bfloat16),
        "e": np.zeros((0, 3), np.float32),
    }
    assert fingerprint(tensors) == "007422e4e3baf67b"


@pytest.mark.parametrize("array", [np.asarray, jax.numpy.asarray])
def test_of_a_classifier(array):
    kernel = array(np.arange(6, dtype=np.float32).reshape(2, 3))
    bias, scale = array(np.zeros(3, np.float32)), array(np.float32(1.0))
    params = {"dense": {"kernel": kernel, "bias": bias}, "a": scale}
    classifier = Classifier(params, (1, 1, 1), 2, accuracy=0.5)
    assert classifier.fingerprint == "238494a2cbbe5a6c"


def test_of_a_tree():
    tree = [
        np.arange(6).reshape(2, 3)[:, ::2],
        (1, 2, 3),
        {"b": jax.numpy.float32(0.5), "a": [np.int8(i) for i in range(12)]},
        jax.random.split(jax.random.key(3), 2),
    ]
    assert digest(tree) == "8fb83dfed087506d"
