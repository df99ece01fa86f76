import jax
import numpy as np
import pytest

from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.evaluation.features.small_classifier import Classifier, train_classifier


def test_it_learns_digits_and_reports_its_accuracy(classifier, digits):
    heldout = digits.heldout.arrays
    accuracy = np.mean(classifier.logits(heldout["images"]).argmax(-1) == heldout["labels"])
    assert accuracy > 0.9
    assert classifier.accuracy > 0.9


def test_features_do_not_depend_on_the_batch(classifier, digits):
    images = digits.heldout.arrays["images"][:70]
    whole = classifier.features(images)
    assert whole.shape == (70, 128) and whole.dtype == np.float32
    for batch_size in (1, 32, 70):
        np.testing.assert_allclose(
            classifier.features(images, batch_size), whole, rtol=1e-4, atol=1e-4
        )
    np.testing.assert_allclose(classifier.features(images[::-1]), whole[::-1], rtol=1e-4, atol=1e-4)
    assert np.std(whole, axis=0).max() > 0.1  # and they are features, not zeros


def test_features_on_a_mesh_are_the_same(classifier, digits):
    images = digits.heldout.arrays["images"][:70]
    sharding = batch_sharding(make_mesh())
    spread = classifier.features(images, 8 * jax.device_count(), sharding)
    np.testing.assert_allclose(spread, classifier.features(images), rtol=1e-4, atol=1e-4)


def test_the_seed_fixes_the_network(digits):
    images, labels = (digits.train.arrays[name][:100] for name in ("images", "labels"))
    first, again, other = (
        train_classifier(images, labels, 10, seed=seed, steps=3) for seed in (0, 0, 1)
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_save_and_load_keep_everything(classifier, digits, tmp_path):
    file, images = tmp_path / "classifier.safetensors", digits.heldout.arrays["images"][:5]
    classifier.save(file)
    loaded = Classifier.load(file)
    assert loaded.fingerprint == classifier.fingerprint
    assert (loaded.accuracy, loaded.num_classes) == (classifier.accuracy, 10)
    np.testing.assert_array_equal(loaded.features(images), classifier.features(images))
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_damaged_and_foreign_files_are_refused(classifier, tmp_path):
    file = tmp_path / "classifier.safetensors"
    classifier.save(file)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="do not match their fingerprint"):
        Classifier.load(file)
    file.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="not a saved small classifier"):
        Classifier.load(file)


def test_colour_images_of_any_shape(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 20, 13, 3), np.uint8)
    trained = train_classifier(images, rng.integers(0, 2, 20), 2, steps=2)
    assert trained.features(images).shape == (20, 128)
    assert trained.logits(images).shape == (20, 2)


def test_errors_name_what_is_wrong(classifier):
    images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.zeros(20, np.int32)
    for bad_images, bad_labels, classes, sentence in [
        (images / 255, labels, 2, "must be uint8 images"),
        (images[:10], labels[:10], 2, "at least 20 images, not 10"),
        (images[:, :7], labels, 2, "at least 8 pixels, not 7x8"),
        (images, labels[:3], 2, "must be 20 integer labels"),
        (images, labels + 2, 2, "must lie in 0..1, not 2..2"),
        (images, labels, 1, "at least 2 classes, not 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            train_classifier(bad_images, bad_labels, classes, steps=1)
    with pytest.raises(ValueError, match="takes images of shape"):
        classifier.features(np.zeros((2, 9, 9, 1), np.uint8))
    with pytest.raises(ValueError, match="at least 1 images, not 0"):
        classifier.features(images[:0])
