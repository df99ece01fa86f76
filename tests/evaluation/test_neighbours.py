import numpy as np
import pytest

from sphere_jax.evaluation import neighbours
from sphere_jax.evaluation.neighbours import density_coverage, precision_recall


def clusters(*centres, each=30):
    rng = np.random.default_rng(5)
    return np.concatenate([c + 0.1 * rng.normal(size=(each, 2)) for c in centres])


def test_generating_one_of_two_modes_is_precise_but_recalls_half():
    real = clusters([0, 0], [10, 10])
    found = precision_recall(real, real[:30], k=3)
    assert found == {"precision": 1.0, "recall": 0.5}


def test_generating_a_mode_that_does_not_exist_recalls_all_but_is_half_precise():
    real = clusters([0, 0])
    generated = np.concatenate([real, real + 10])
    assert precision_recall(real, generated, k=3) == {"precision": 0.5, "recall": 1.0}


def test_far_sets_share_nothing_and_equal_sets_everything():
    real = clusters([0, 0])
    assert precision_recall(real, real + 100) == {"precision": 0.0, "recall": 0.0}
    assert precision_recall(real, real) == {"precision": 1.0, "recall": 1.0}


def test_balls_reach_to_the_kth_neighbour_not_counting_the_point():
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # radii for k=2: 3, 2, 3, 6
    generated = np.array([[-2.9], [-3.1], [12.9], [13.1], [5.9]])
    assert precision_recall(real, generated, k=2)["precision"] == pytest.approx(3 / 5)


def test_the_result_does_not_depend_on_the_chunks(monkeypatch):
    rng = np.random.default_rng(6)
    real, generated = rng.normal(size=(70, 4)), rng.normal(size=(50, 4)) + 0.5
    whole = precision_recall(real, generated)
    monkeypatch.setattr("sphere_jax.evaluation.tiles.TILE", 16)
    assert precision_recall(real, generated) == whole
    assert 0 < whole["precision"] < 1 and 0 < whole["recall"] < 1


def test_precision_recall_refuses_too_few_and_nan():
    points = np.zeros((10, 2))
    with pytest.raises(ValueError, match="generated features must hold at least 4 rows, not 3"):
        precision_recall(points, points[:3])
    with pytest.raises(ValueError, match="real features hold NaN"):
        precision_recall(points * np.nan, points)
    with pytest.raises(ValueError, match="k must be at least 1"):
        precision_recall(points, points, k=0)
    with pytest.raises(ValueError, match="lengths 2 and 3"):
        precision_recall(points, np.zeros((10, 3)))


def by_all_pairs(real, generated, k):
    """The four numbers from float64 differences, of their definitions."""

    def squared(a, b):
        return np.square(a[:, None].astype(float) - b[None].astype(float)).sum(2)

    def radii(x):
        return np.sort(squared(x, x) + np.diag(np.full(len(x), np.inf)), axis=1)[:, k - 1]

    apart = squared(real, generated)
    of_real, of_generated = radii(real), radii(generated)
    slack = 1 + 1e-9
    within = apart <= of_real[:, None] * slack + 1e-9
    return {
        "precision": within.any(0).mean(),
        "recall": (apart <= of_generated[None] * slack + 1e-9).any(1).mean(),
        "density": within.sum() / k / len(generated),
        "coverage": within.any(1).mean(),
    }


def in_general_position(rng):
    return rng.normal(size=(130, 20)), rng.normal(size=(110, 20)) * 1.2


def far_from_the_origin(rng):
    return tuple(x + 3000 for x in in_general_position(rng))


def in_two_far_clusters(rng):
    real, generated = in_general_position(rng)
    real[::2] += 1e5
    generated[::3] += 1e5
    return real, generated


def on_a_grid(rng):
    """Many distances are equal, and many points."""
    return tuple(rng.integers(0, 3, (count, 3)).astype(float) for count in (130, 110))


def with_copies(rng):
    real, generated = in_general_position(rng)
    generated[:40], real[60:90] = real[:40], real[:1]
    return real, generated


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(
    "sets",
    [in_general_position, far_from_the_origin, in_two_far_clusters, on_a_grid, with_copies],
)
def test_float32_tiles_decide_as_exact_distances_do(monkeypatch, sets, k, dtype):
    real, generated = (x.astype(dtype) for x in sets(np.random.default_rng(k)))
    expected = by_all_pairs(real, generated, k)
    for size in (40, 1024):
        monkeypatch.setattr("sphere_jax.evaluation.tiles.TILE", size)
        found = precision_recall(real, generated, k) | density_coverage(real, generated, k)
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cores", [1, 3])
def test_cores_change_nothing(monkeypatch, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("sphere_jax.evaluation.tiles.TILE", 40)
    real, generated = in_general_position(np.random.default_rng(0))
    found = precision_recall(real, generated, 3) | density_coverage(real, generated, 3)
    assert found == pytest.approx(by_all_pairs(real, generated, 3), rel=1e-12)
    near = neighbours.nearest_reference(generated, real)
    apart = np.sqrt(np.square(generated[:, None] - real[None]).sum(2))
    np.testing.assert_allclose(near.distances, apart.min(1), rtol=1e-12)
    np.testing.assert_array_equal(near.indices, apart.argmin(1))


def test_few_pairs_are_looked_at_again(monkeypatch):
    """In general position float32 decides nearly all."""
    counted = []
    exact = neighbours.exact
    monkeypatch.setattr(neighbours, "exact", lambda *a: counted.append(len(a[2])) or exact(*a))
    rng = np.random.default_rng(0)
    real, generated = (rng.normal(size=(600, 128)).astype(np.float32) for _ in range(2))
    precision_recall(real, generated)
    assert sum(counted) < 1200 + 0.01 * 600 * 600  # a radius each, and pairs at rims


def test_the_order_of_points_changes_nothing():
    rng = np.random.default_rng(1)
    real, generated = (rng.normal(size=(200, 8)) for _ in range(2))
    mixed = precision_recall(rng.permutation(real), rng.permutation(generated))
    assert mixed == precision_recall(real, generated)


def test_density_is_about_one_of_equal_distributions_and_counts_no_outlier():
    rng = np.random.default_rng(2)
    real, generated = rng.normal(size=(600, 4)), rng.normal(size=(600, 4))
    found = density_coverage(real, generated)
    assert found["density"] == pytest.approx(1, abs=0.1) and found["coverage"] > 0.9
    generated[0] = 1e4  # its ball would hold every real point, but is not looked at
    generated[1:] += 100
    assert density_coverage(real, generated) == {"density": 0, "coverage": 0}
    assert density_coverage(real, real)["coverage"] == 1
