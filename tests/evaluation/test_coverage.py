"""Coverage of the sphere: uniform points look uniform, clustered ones do not."""

import numpy as np

from sphere_jax.evaluation.coverage import coverage, sliced_wasserstein, uniform_points

LABELS = np.arange(400) % 4


def test_uniform_points_are_as_far_as_uniform_points():
    found = coverage(uniform_points(400, 64, seed=5).reshape(400, 4, 4, 4), LABELS)
    ratio = found["sliced_wasserstein"] / found["sliced_wasserstein_uniform"]
    assert 0.8 < ratio < 1.25
    np.testing.assert_allclose(found["cosine_uniform_std"], 1 / 8)
    for kind in ("within", "across"):
        assert abs(found[f"cosine_{kind}_mean"]) < 0.01
        assert abs(found[f"cosine_{kind}_std"] - 1 / 8) < 0.01


def test_clusters_of_classes_are_seen():
    centres = uniform_points(4, 64, seed=1)[LABELS]
    points = centres + 0.5 * uniform_points(400, 64, seed=2)
    points /= np.sqrt(np.mean(points**2, axis=1, keepdims=True))
    found = coverage(points, LABELS)
    assert found["sliced_wasserstein"] > 3 * found["sliced_wasserstein_uniform"]
    assert found["cosine_within_mean"] > 0.7 > 0.4 > found["cosine_across_mean"]


def test_the_distance_of_a_shift():
    """Shifted by c along all of one axis: each projection moves by c times its direction."""
    points = uniform_points(500, 32, seed=0)
    shifted = points + np.eye(32, dtype=np.float32)[0] * 2.0
    found = sliced_wasserstein(points, shifted)
    assert abs(found - 2.0 / np.sqrt(32)) < 0.05
    assert sliced_wasserstein(points, points) == 0.0


def test_one_class_has_no_pairs_across():
    found = coverage(uniform_points(50, 16, seed=0), np.zeros(50, int))
    assert "cosine_within_mean" in found and "cosine_across_mean" not in found
