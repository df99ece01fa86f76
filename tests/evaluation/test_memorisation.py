import numpy as np
import pytest

from sphere_jax.evaluation.memorisation import memorisation, nearest_training_image


def images(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4, 3), np.uint8)


def test_distances_equal_those_of_all_pairs_whatever_the_chunks(monkeypatch):
    monkeypatch.setattr("sphere_jax.evaluation.memorisation.CHUNK", 16)
    queries, train = images(37, 0), images(90, 1)
    difference = queries[:, None].astype(float) - train[None, :].astype(float)
    pairs = np.sqrt(np.square(difference).mean((2, 3, 4)))
    distances, indices = nearest_training_image(queries, train)
    np.testing.assert_allclose(distances, pairs.min(1), rtol=1e-12)
    np.testing.assert_array_equal(indices, pairs.argmin(1))


def test_a_copy_is_found_at_distance_exactly_zero():
    train = images(50, 2)
    copies = train[[7, 49]]
    distances, indices = nearest_training_image(copies, train)
    assert distances.tolist() == [0, 0] and indices.tolist() == [7, 49]
    distances, _ = nearest_training_image(train[:1] // 2 + 60, train[:1] // 2 + 63)
    assert distances[0] == 3  # grey levels


def test_copying_and_not_copying():
    heldout = np.linspace(10, 20, 1001)
    clean = memorisation(heldout, heldout)
    assert clean["nearest_train_distance_ratio"] == 1.0
    assert clean["nearest_train_too_close"] == pytest.approx(0.01, abs=0.001)
    half = memorisation(np.where(np.arange(100) < 50, 0.0, 15.0), heldout)
    assert half["nearest_train_too_close"] == 0.5
    assert memorisation(np.full(5, 7.5), heldout)["nearest_train_distance_ratio"] == 0.5


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="at least one sample"):
        memorisation(np.array([]), np.ones(3))
    with pytest.raises(ValueError, match="copies of training images"):
        memorisation(np.ones(3), np.array([0.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="have no distance"):
        nearest_training_image(images(2, 0), images(2, 0)[:, :4])
    with pytest.raises(ValueError, match="at least 1 images, not 0"):
        nearest_training_image(images(0, 0), images(2, 0))
