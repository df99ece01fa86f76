"""Each measure on the same features equals those of pytorch-fid 0.3.0, torch-fidelity 0.4.0,
clean-fid 0.1.35, torchmetrics 1.9.0 and prdc 0.2."""

import warnings

import numpy as np
import pytest

from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.measures.base import find_measure
from sphere_jax.evaluation.neighbours import precision_recall
from sphere_jax.evaluation.statistics import Statistics

pytestmark = pytest.mark.parity


def draw(count, width, seed, spread=1.0):
    """Positive features with a decaying spectrum, as those of Inception."""
    rng, mix = np.random.default_rng(seed), np.random.default_rng(9)
    scale = spread * np.exp(-np.arange(width) / width * 5)
    x = (rng.normal(size=(count, width)) * scale) @ mix.normal(size=(width, width)) * 0.1
    return np.maximum(x + 0.05 * rng.normal(size=(count, width)) + 0.1, 0).astype(np.float32)


@pytest.fixture(scope="module")
def sets():
    """Samples and reference (N, F)."""
    return draw(700, 128, 0, 1.1), draw(600, 128, 1)


def original(name):
    from torchvision_shim import importorskip

    return importorskip(name)


def value(text, samples, reference=None):
    return find_measure(text).compute(samples, reference)


def moments(x):
    return x.astype(np.float64).mean(0), np.cov(x, rowvar=False)


@pytest.mark.parametrize("package", ["pytorch_fid", "torch_fidelity", "cleanfid", "torchmetrics"])
def test_frechet_distance(sets, package):
    """Largest relative difference seen: 4e-10, of torchmetrics."""
    (mu1, sigma1), (mu2, sigma2) = map(moments, sets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scipy's argument disp
        if package == "pytorch_fid":
            score = original("pytorch_fid.fid_score").calculate_frechet_distance
            expected = score(mu1, sigma1, mu2, sigma2)
        elif package == "torch_fidelity":
            score = original("torch_fidelity.metric_fid").fid_statistics_to_metric
            one, other = {"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2}
            expected = score(one, other, False)["frechet_inception_distance"]
        elif package == "cleanfid":
            expected = original("cleanfid.fid").frechet_distance(mu1, sigma1, mu2, sigma2)
        else:
            import torch

            score = original("torchmetrics.image.fid")._compute_fid
            expected = float(score(*map(torch.from_numpy, (mu1, sigma1, mu2, sigma2))))
    statistics = map(Statistics.of, sets)
    assert frechet_distance_of(*statistics) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_of_torch_fidelity(sets, splits):
    """With its shuffling, and ADM's without. Largest relative difference seen: 1e-15."""
    import torch

    score = original("torch_fidelity.metric_isc").isc_features_to_metric
    logits = torch.from_numpy(30 * sets[0])
    for shuffle in (True, False):
        expected = score(logits, splits, shuffle)
        found = value(f"inception_score:splits={splits},shuffle={shuffle}", logits.numpy())
        assert found["inception_score"] == pytest.approx(expected["inception_score_mean"], rel=1e-9)
        assert found["inception_score_std"] == pytest.approx(
            expected["inception_score_std"], rel=1e-7, abs=1e-9
        )


def test_inception_score_of_torchmetrics(sets):
    """Its shuffling has torch's seed: of one part."""
    import torch

    metric = original("torchmetrics.image.inception").InceptionScore(
        feature=torch.nn.Identity(), splits=1
    )
    metric.features.append(torch.from_numpy(30 * sets[0]).double())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deviation of one part
        expected = float(metric.compute()[0])
    found = value("inception_score:splits=1", 30 * sets[0])
    assert found["inception_score"] == pytest.approx(expected, rel=1e-6)


def test_kid_of_torch_fidelity(sets):
    """The same subsets. It sums in float32, which costs it digits."""
    import torch

    score = original("torch_fidelity.metric_kid").kid_features_to_metric
    sizes = dict(kid_subsets=20, kid_subset_size=500, verbose=False)
    expected = score(*map(torch.from_numpy, sets), **sizes)
    found = value("kid:subsets=20,subset_size=500", *sets)
    assert found["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert found["kid_std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)


@pytest.mark.parametrize("package", ["cleanfid", "torchmetrics"])
def test_kid_of_all_pairs(sets, package):
    """Of as many on both sides: one subset of all. In float64: 1e-6."""
    import torch

    samples, reference = (x[:600].astype(np.float64) for x in sets)
    if package == "cleanfid":
        score = original("cleanfid.fid").kernel_distance
        expected = score(samples, reference, num_subsets=1, max_subset_size=600)
    else:
        score = original("torchmetrics.image.kid").poly_mmd
        expected = float(score(*map(torch.from_numpy, (reference, samples))))
    found = value("kid", samples.astype(np.float32), reference.astype(np.float32))
    assert found["kid"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall_of_torch_fidelity(sets, k):
    import torch

    module = original("torch_fidelity.metric_prc")
    samples, reference = map(torch.from_numpy, sets)
    found = precision_recall(sets[1], sets[0], k)
    for score in (module.calculate_precision_recall_full, module.calculate_precision_recall_part):
        expected = score(samples, reference, neighborhood=k)
        assert (found["precision"], found["recall"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_recall_density_and_coverage_of_prdc(sets, k):
    expected = pytest.importorskip("prdc").compute_prdc(sets[1], sets[0], nearest_k=k)
    found = value(f"precision_recall:neighbours={k}", *sets)
    found |= value(f"density_coverage:neighbours={k}", *sets)
    assert 0.1 < found["precision"] < 0.95 and 0.1 < found["coverage"] < 0.95
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
