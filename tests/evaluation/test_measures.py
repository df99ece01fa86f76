"""What holds for every measure, found by name: facts, settings, keys, refusals."""

import dataclasses
import os
import tracemalloc

import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.fidelity import Fidelity
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.measures.base import Input, all_measures, find_measure
from sphere_jax.evaluation.statistics import Statistics, Stream

SETTINGS = {  # that suit small sets
    "fid_infinity": "fid_infinity:least=40,points=4",
    "inception_score": "inception_score:splits=1",
}
ALL = [SETTINGS.get(name, name) for name in all_measures()]


def rows(n=40, f=6, seed=0, shift=0.0):
    values = np.random.default_rng(seed).normal(size=(n, f)) + shift
    return values.astype(np.float32)


def scored(text, samples, reference, labels=None):
    """The values of a measure, from rows that stand for all of its inputs."""
    measure = find_measure(text)
    return measure.result(*given(measure, samples, reference), labels).values


def given(measure, samples, reference):
    """What the measure takes, from rows that stand for all of its inputs."""

    def as_needed(inputs, x):
        return {each: Statistics.of(x) if each.needs == "statistics" else x for each in inputs}

    return (
        as_needed(measure.inputs(), samples),
        as_needed(measure.reference_inputs(), reference),
    )


@pytest.mark.parametrize("text", ALL)
def test_order_and_tiles_change_nothing(monkeypatch, text):
    """To a part in a million; FID at infinity draws its samples by their order."""
    samples, reference = rows(90, 8), rows(70, 8, seed=1, shift=0.3)
    labels = np.arange(90) % 8
    expected = scored(text, samples, reference, labels)
    mix = np.random.default_rng(3).permutation(90)
    monkeypatch.setattr("sphere_jax.evaluation.tiles.TILE", 32)
    if not text.startswith("fid_infinity"):
        found = scored(text, samples[mix], reference[::-1], labels[mix])
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert scored(text, samples, reference, labels) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("fid", {"fid": 0}),
        ("sfid", {"sfid": 0}),
        ("frechet_distance:network=x", {"frechet_distance_x": 0}),
        ("cmmd", {"cmmd": 0}),
        ("precision_recall", {"precision": 1, "recall": 1}),
        ("density_coverage", {"coverage": 1}),
        ("authenticity", {"authenticity": 0, "nearest_distance_ratio": 0, "nearest_too_close": 1}),
    ],
)
def test_of_two_equal_sets(text, expected):
    found = scored(text, rows(80), rows(80)[::-1])
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def test_unbiased_kid_of_equal_distributions_is_zero_within_its_error():
    """And below zero about as often as above."""
    found = [scored("kid", rows(60, seed=i), rows(50, seed=100 + i)) for i in range(30)]
    values = np.array([each["kid"] for each in found])
    errors = np.array([each["kid_standard_error"] for each in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(30)
    assert 5 < np.count_nonzero(values < 0) < 25
    assert np.mean(np.abs(values) < 2 * errors) > 0.9


def test_the_standard_error_of_kid_is_the_deviation_between_draws():
    found = [scored("kid", rows(60, seed=i), rows(80, seed=100 + i, shift=0.5)) for i in range(40)]
    deviation = np.std([each["kid"] for each in found])
    errors = [each["kid_standard_error"] for each in found]
    assert np.mean(errors) == pytest.approx(deviation, rel=0.3)


def test_the_mean_of_kid_over_subsets_estimates_that_of_all_pairs():
    samples, reference = rows(200), rows(200, seed=1, shift=0.5)
    whole = scored("kid", samples, reference)["kid"]
    parts = scored("kid:subsets=20,subset_size=50", samples, reference)
    assert parts.keys() == {"kid", "kid_std"}
    assert parts["kid"] == pytest.approx(whole, abs=4 * parts["kid_std"] / np.sqrt(20))


def test_the_inception_score_is_one_of_one_class_and_k_of_k_sure_ones():
    sure = 100 * np.eye(8, dtype=np.float32)[np.arange(80) % 8]
    assert scored("inception_score", sure[:1].repeat(80, 0), None) == pytest.approx(
        {"inception_score": 1, "inception_score_std": 0}
    )
    assert scored("inception_score:splits=1", sure, None)["inception_score"] == pytest.approx(8)
    by_class = sure[np.argsort(np.arange(80) % 8)]
    apart = scored("inception_score:splits=8,shuffle=false", by_class, None)
    assert apart["inception_score"] == pytest.approx(1)
    unsure = scored("inception_score:splits=1", np.zeros((80, 8), np.float32), None)
    assert unsure["inception_score"] == pytest.approx(1)


def test_fid_at_infinity_removes_the_bias_of_few_samples():
    """Of one Gaussian on both sides the distance is 0, and that of n samples is positive."""
    reference = Statistics.of(rows(200_000, 8, seed=1))
    measure = find_measure("fid_infinity:least=100,points=10")
    measured = find_measure("fid")
    biased, found = [], []
    for seed in range(4):
        samples = rows(1000, 8, seed=10 + seed)
        found.append(measure.compute(samples, reference)["fid_infinity"])
        biased.append(measured.compute(Statistics.of(samples), reference)["fid"])
    assert np.mean(biased) > 0.015
    assert abs(np.mean(found)) < 0.5 * np.mean(biased)


@pytest.mark.parametrize("shift, spread", [(0.5, 1.0), (0.0, 1.5), (0.2, 0.8)])
def test_the_standard_error_of_fid_is_that_of_a_bootstrap_and_between_draws(shift, spread):
    reference, fid = Statistics.of(rows(5000, 6, seed=1)), find_measure("fid")
    samples = spread * rows(400, 6, seed=2, shift=shift)
    found = scored("fid_standard_error", samples, rows(5000, 6, seed=1))["fid_standard_error"]
    rng = np.random.default_rng(0)
    again = [Statistics.of(samples[rng.integers(400, size=400)]) for _ in range(150)]
    draws = [Statistics.of(spread * rows(400, 6, seed=9 + i, shift=shift)) for i in range(150)]
    for each in (again, draws):
        deviation = np.std([fid.compute(statistics, reference)["fid"] for statistics in each])
        assert found == pytest.approx(deviation, rel=0.25)


@pytest.mark.parametrize("text, copies", [("precision_recall", 2), ("kid", 0), ("cmmd", 2)])
def test_rows_are_copied_once_at_most_and_the_rest_is_tiles(monkeypatch, text, copies):
    """So that 50,000 x 2,048 on each side stay below 2 GB, where all distances would take 20."""
    monkeypatch.setattr("sphere_jax.evaluation.tiles.TILE", 256)
    samples, reference = rows(3000, 128), rows(3000, 128, seed=1)
    measure, cores = find_measure(text), os.cpu_count()
    measure.compute(samples[:300], reference[:300])  # imports
    tracemalloc.start()
    measure.compute(samples, reference)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < copies * samples.nbytes + 2e6 * (2 + cores)  # all distances take 36e6


def test_authenticity_counts_copies():
    reference = rows(60, 8)
    samples = np.concatenate([reference[:20] + 1e-3, rows(20, 8, seed=5, shift=9)])
    found = scored("authenticity", samples, reference)
    assert found["authenticity"] == 0.5 and found["nearest_too_close"] == 0.5


def test_class_agreement_counts_the_first_and_the_first_five():
    logits = np.tile(np.arange(10, dtype=np.float32), (4, 1))  # classes 9, 8, 7 and so on
    found = scored("class_agreement", logits, None, np.array([9, 8, 5, 4]))
    assert found == {"class_agreement_top1": 0.25, "class_agreement_top5": 0.75}
    with pytest.raises(UserError, match=r"knows the classes 0..9, not 3..10"):
        scored("class_agreement", logits, None, np.array([9, 10, 5, 3]))
    with pytest.raises(UserError, match="needs the classes that samples were drawn for"):
        scored("class_agreement", logits, None)


def test_the_example_of_the_page():
    """Of docs/metrics.md, its first column."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(20000, 64)).astype(np.float32)[:500]
    samples = (1.05 * rng.normal(size=(20000, 64))).astype(np.float32)[:500]
    expected = {
        "fid": {"fid": 4.783},
        "kid": {"kid": 0.001933, "kid_standard_error": 0.003352},
        "cmmd:sigma=8": {"cmmd": 3.37, "cmmd_standard_error": 0.4093},
        "precision_recall": {
            "precision": 0.492,
            "precision_standard_error": (0.492 * 0.508 / 500) ** 0.5,
            "recall": 0.788,
            "recall_standard_error": (0.788 * 0.212 / 500) ** 0.5,
        },
        "density_coverage": {
            "density": 0.5648,
            "coverage": 0.882,
            "coverage_standard_error": (0.882 * 0.118 / 500) ** 0.5,
        },
    }
    found = {text: scored(text, samples, reference) for text in expected}
    for text, values in expected.items():
        assert found[text] == pytest.approx(values, rel=1e-3)


def test_distances_are_flat_over_the_batch_size(monkeypatch, digits, classifier):
    """FID and rFID: images through a network at 512, 256 and 128 at once."""
    samples, reference = (split.arrays["images"] for split in (digits.train, digits.heldout))
    blurred = (reference // 2 + np.roll(reference, 1, axis=2) // 2).astype(np.uint8)
    fids, rfids = [], []
    for size in (512, 256, 128, 50):
        streams = [Stream(), Stream()]
        for stream, images in zip(streams, (samples, reference), strict=True):
            for start in range(0, len(images), size):
                stream.add(classifier.features(images[start : start + size], size))
        fids.append(frechet_distance_of(*(stream.statistics() for stream in streams)))
        monkeypatch.setattr("sphere_jax.evaluation.fidelity.BATCH", size)
        fidelity = Fidelity(None, classifier)
        scores = fidelity.scores(reference, blurred, fidelity.moments(reference))
        rfids.append(scores["frechet_distance_small_classifier"])
    assert fids == pytest.approx([fids[0]] * 4, rel=1e-6) and fids[0] > 1e-3
    assert rfids == pytest.approx([rfids[0]] * 4, rel=1e-6) and rfids[0] > 1e-3


@pytest.mark.parametrize(
    "text, n, message",
    [
        ("kid:subsets=5", 40, "KID in subsets of 1000 needs as many images on each side, not 40"),
        ("precision_recall", 3, "with neighbours=3 needs more images on each side than that"),
        ("inception_score", 5, "needs at least 10 samples, not 5"),
        ("fid_infinity", 40, "needs more than 5,000 samples, not 40"),
        ("precision_recall:neighbours=0", 9, "neighbours must be at least 1"),
        ("precision_recall:neighbours=x", 9, "'x' is no int"),
        ("inception_score:shuffle=maybe", 9, "'maybe' is no bool"),
    ],
)
def test_what_does_not_suit_is_refused_in_a_sentence(text, n, message):
    with pytest.raises(UserError, match=message):
        scored(text, rows(n), rows(n))


@pytest.mark.parametrize("text", ["kid", "cmmd", "precision_recall", "authenticity"])
def test_features_that_are_not_finite_are_refused(text):
    broken = rows()
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match="NaN or infinity"):
        scored(text, broken, rows())


def test_sets_of_unequal_size_are_remarked_on_and_counted():
    measure = find_measure("precision_recall:neighbours=5")
    found = measure.result(*given(measure, rows(40), rows(30)))
    assert found.facts["samples"] == 40 and found.facts["reference"] == 30
    assert found.facts["settings"] == {"neighbours": 5}
    assert "40 samples against 30 reference images" in found.remarks[0]


@pytest.mark.parametrize("name", all_measures())
def test_each_measure_states_its_facts(name):
    measure = find_measure(name)
    assert measure.name == name
    assert measure.title and measure.better in ("lower", "higher")
    assert all(isinstance(each, Input) for each in measure.inputs())


def test_fid_of_two_sets_with_its_facts():
    measure = find_measure("fid")
    samples, reference = rows(), rows(60, seed=1, shift=1)
    found = measure.result(*given(measure, samples, reference))
    difference = samples.mean(0) - reference.mean(0)
    assert found.values["fid"] > float(difference @ difference)
    assert found.facts["samples"] == 40 and found.facts["reference"] == 60
    assert found.facts["measure"] == "fid" and found.facts["settings"] == {}
    assert len(found.remarks) == 2 and all("biased" in remark for remark in found.remarks)
    same = measure.result(*given(measure, samples, samples))
    assert same.values == {"fid": pytest.approx(0, abs=1e-9)}


def test_few_images_are_refused_or_remarked_on():
    measure = find_measure("fid")
    with pytest.raises(UserError, match="FID needs at least 2 images of the samples, not 1"):
        measure.result(*given(measure, rows(1), rows()))
    found = measure.result(*given(measure, rows(6), rows(5000)))
    assert len(found.remarks) == 1 and "singular" in found.remarks[0]
    assert measure.result(*given(measure, rows(5000), rows(5000))).remarks == ()


def test_a_reference_of_unknown_size_has_no_count():
    measure, x = find_measure("fid"), Statistics.of(rows())
    (mine,), (theirs,) = measure.inputs(), measure.reference_inputs()
    found = measure.result({mine: x}, {theirs: Statistics(None, x.mu, x.sigma)})
    assert found.facts["reference"] is None and found.facts["samples"] == 40


def test_another_network_is_in_the_key():
    measure = find_measure("fid:network=my_package.my_net")
    assert measure.inputs() == (Input("my_package.my_net", "features", "statistics"),)
    assert list(measure.result(*given(measure, rows(), rows())).values) == ["fid_my_net"]
    own = find_measure("frechet_distance")
    assert own.suffix == f"_{own.network}"


def test_settings_that_are_not_known_are_refused():
    with pytest.raises(UserError, match="'fidd' is not known; did you mean 'fid'"):
        find_measure("fidd")
    with pytest.raises(UserError, match="fid has no setting 'networ'; did you mean 'network'"):
        find_measure("fid:networ=x")


def test_measures_are_values():
    assert find_measure("fid") == find_measure("fid")
    changed = dataclasses.replace(find_measure("fid"), network="x")
    assert changed != find_measure("fid") and hash(changed)
