import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.batches import padded_batches
from sphere_jax.evaluation.sides.open_side import open_side
from sphere_jax.evaluation.statistics import BLOCK, Statistics, Stream


def features(n=101, f=7):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, f)) @ rng.normal(size=(f, f)) + 3


def streamed(x, batch_size):
    statistics = Statistics.empty(x.shape[1])
    for batch, mask in padded_batches(x, batch_size):
        statistics = statistics.update(batch, mask)
    return statistics


@pytest.mark.parametrize("batch_size", [1, 7, 32, 101, 300])
def test_a_stream_with_a_masked_last_batch_equals_np_cov(batch_size):
    x = features()
    statistics = streamed(x, batch_size)
    assert statistics.n == 101
    np.testing.assert_allclose(statistics.mu, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.sigma, np.cov(x, rowvar=False), rtol=1e-12, atol=1e-13)


def test_masked_rows_do_not_count_even_if_they_are_not_finite():
    x = features(6)
    poisoned = np.concatenate([x, np.full((2, 7), np.nan)])
    masked = Statistics.empty(7).update(poisoned, np.arange(8) < 6)
    np.testing.assert_array_equal(masked.scatter, Statistics.of(x).scatter)
    nothing = masked.update(poisoned, np.zeros(8, bool))
    assert nothing.n == 6


def test_merging_parts_in_any_order_is_the_whole():
    x = features()
    first, second, third = (Statistics.of(part) for part in np.split(x, [10, 60]))
    for merged in (first.merge(second).merge(third), third.merge(first.merge(second))):
        np.testing.assert_allclose(merged.sigma, Statistics.of(x).sigma, rtol=1e-12, atol=1e-13)


def test_a_mean_far_from_zero_costs_no_digits():
    # E[x^2] - E[x]^2 in float64 would leave 1e16 * 2e-16 = 2 of this unit variance.
    x = features()
    far = streamed(x + 2.0**26, 10)
    np.testing.assert_allclose(far.sigma, np.cov(x, rowvar=False), rtol=1e-6, atol=1e-6)


def test_float32_features_accumulate_in_float64():
    x = features().astype(np.float32)
    expected = np.cov(x.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(streamed(x, 8).sigma, expected, rtol=1e-12, atol=1e-13)


def test_npz_round_trip_keeps_moments_count_and_protocol(tmp_path):
    statistics, protocol = Statistics.of(features()), {"features": {"name": "é", "length": 7}}
    statistics.save(tmp_path / "reference.npz", protocol)
    loaded, read = Statistics.load(tmp_path / "reference.npz")
    assert read == protocol and loaded.n == 101
    np.testing.assert_array_equal(loaded.mu, statistics.mu)
    np.testing.assert_allclose(loaded.sigma, statistics.sigma, rtol=1e-15)
    assert [p.name for p in tmp_path.iterdir()] == ["reference.npz"]


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="NaN or infinity"):
        Statistics.of(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="at least 2 feature vectors, not 1"):
        _ = Statistics.of(np.ones((1, 3))).sigma
    with pytest.raises(ValueError, match="length 3 and 4"):
        Statistics.empty(3).merge(Statistics.empty(4))
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(2), cov=np.eye(2))
    with pytest.raises(UserError, match="lacks the array 'sigma'"):
        Statistics.load(tmp_path / "foreign.npz")
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(2), sigma=np.eye(3))
    with pytest.raises(UserError, match=r"foreign.npz: mu and sigma must have shapes \(F,\)"):
        Statistics.load(tmp_path / "foreign.npz")
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(2), sigma=np.eye(2) * np.nan)
    with pytest.raises(UserError, match="must not hold NaN"):
        Statistics.load(tmp_path / "foreign.npz")
    moments = {"mu": np.zeros(2), "sigma": np.eye(2)}
    for more, words in (
        ({"mu": np.array(["a", "b"])}, "must be numbers"),
        ({"n": np.array([3, 4])}, "n must be a whole number"),
        ({"n": np.asarray(1)}, "n must be a whole number"),
        ({"protocol": np.asarray("{")}, "'protocol' of .*foreign.npz is damaged"),
        ({"protocol": np.asarray("[]")}, "it is no object"),
        ({"protocol": np.asarray('{"networks": {"a": {}}}')}, "'outputs' is missing"),
    ):
        np.savez(tmp_path / "foreign.npz", **moments | more)
        with pytest.raises(UserError, match=words):
            Statistics.load(tmp_path / "foreign.npz")
        if "protocol" in more:
            with pytest.raises(UserError, match=words):
                open_side(tmp_path / "foreign.npz")


def test_files_of_other_tools_load_without_a_count_and_are_not_merged(tmp_path):
    """pytorch-fid's file has mu and sigma; ADM's has images and the spatial features' beside them,
    with a mean of shape (1, F) in some."""
    pooled, spatial = Statistics.of(features()), Statistics.of(features(50, 3))
    arrays = pooled.arrays() | spatial.arrays("_s")
    arrays = {key: value for key, value in arrays.items() if not key.startswith("n")}
    arrays["mu_s"] = arrays["mu_s"].reshape(1, -1)
    np.savez(tmp_path / "adm.npz", arr_0=np.zeros((2, 8, 8, 3), np.uint8), **arrays)
    for suffix, expected in (("", pooled), ("_s", spatial)):
        loaded, protocol = Statistics.load(tmp_path / "adm.npz", suffix)
        assert loaded.n is None and protocol is None
        np.testing.assert_array_equal(loaded.mu, expected.mu)
        np.testing.assert_array_equal(loaded.sigma, expected.sigma)
        with pytest.raises(ValueError, match="unknown number of vectors"):
            loaded.merge(expected)
        again = Statistics.from_arrays(loaded.arrays())
        np.testing.assert_array_equal(again.sigma, expected.sigma)


@pytest.mark.parametrize("batch_size", [128, 256, 512, 999, 3000])
def test_a_stream_has_the_same_bits_whatever_its_batches(batch_size):
    x = features(2 * BLOCK + 100).astype(np.float32)
    one_by_one, stream = Stream(), Stream()
    for row in x:
        one_by_one.add(row[None])
    for batch, mask in padded_batches(x, batch_size):
        stream.add(batch, mask)
    found, expected = stream.statistics(), one_by_one.statistics()
    assert found.n == len(x)
    np.testing.assert_array_equal(found.scatter, expected.scatter)
    np.testing.assert_array_equal(found.mu, expected.mu)
    exact = np.cov(x.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(found.sigma, exact, rtol=1e-12, atol=1e-12)


def test_an_empty_stream_has_no_statistics():
    with pytest.raises(ValueError):
        Stream().statistics()
