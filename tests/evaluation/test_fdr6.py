"""FDr^6 and FD-DINOv2 on statistics that stand for those of their networks."""

import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.measures.base import find_measure
from sphere_jax.evaluation.measures.fdr6 import NETWORKS, VALIDATION
from sphere_jax.evaluation.network_weights import load_networks
from sphere_jax.evaluation.sides.stored_statistics import write_statistics
from sphere_jax.evaluation.statistics import Statistics


def of(seed, shift=0.0):
    """Statistics of each network, all different."""
    rng = np.random.default_rng(seed)
    return {
        each: Statistics.of(rng.normal(shift, 1 + k, (50, 4)))
        for k, each in enumerate(find_measure("fdr6").inputs())
    }


@pytest.fixture
def validation(tmp_path):
    """A file of statistics, and what it holds."""
    found = of(2, 0.1)
    protocol = {"networks": {each.network: {"outputs": ["features"]} for each in found}}
    stored = {each[:2]: value for each, value in found.items()}
    write_statistics(tmp_path / "validation.npz", stored, protocol)
    return str(tmp_path / "validation.npz"), found


def test_the_ratios_are_in_units_of_the_validation_set(validation):
    path, of_validation = validation
    samples, reference = of(0, 1.0), of(1)
    found = find_measure(f"fdr6:validation={path}").result(samples, reference)
    ratios = []
    for each in samples:
        distance = frechet_distance_of(samples[each], reference[each])
        ratio = distance / frechet_distance_of(of_validation[each], reference[each])
        assert found.values[f"fdr_{each.network}"] == pytest.approx(ratio, rel=1e-6)
        assert found.values[f"frechet_distance_{each.network}"] == distance
        ratios.append(ratio)
    assert found.values["fdr6"] == pytest.approx(np.mean(ratios), rel=1e-6)
    assert len(set(ratios)) == 6 and found.facts["settings"] == {
        "pixels": 256,
        "validation": path,
    }
    assert not any("published" in remark for remark in found.remarks)
    itself = find_measure(f"fdr6:validation={path}").scores(of_validation, reference)
    assert itself["fdr6"] == pytest.approx(1)


def test_published_units_are_said():
    samples, reference = of(0, 1.0), of(1)
    found = find_measure("fdr6").result(samples, reference)
    name = "dinov2_vitl14_256"
    expected = found.values[f"frechet_distance_{name}"] / VALIDATION["imagenet256"][name]
    assert found.values[f"fdr_{name}"] == pytest.approx(expected) and expected > 0
    assert "published distances of imagenet256" in found.remarks[-1]
    assert sum("singular" in remark for remark in found.remarks) == 2


def test_what_is_missing_is_named(tmp_path, monkeypatch, validation):
    monkeypatch.setenv("SPHERE_JAX_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError) as error:
        load_networks(NETWORKS[256])
    for name in ("inception_fid", "convnextv2_base", "dinov2_vitl14", "mae_vitl16", "clip_vitl14"):
        assert f" {name} " in str(error.value)
    half = {each[:2]: value for each, value in list(validation[1].items())[:3]}
    protocol = {"networks": {name: {"outputs": ["features"]} for name, _ in half}}
    write_statistics(tmp_path / "half.npz", half, protocol)
    with pytest.raises(UserError, match="no statistics of mae_vitl16 and of siglip2_so400m16 and"):
        find_measure(f"fdr6:validation={tmp_path}/half.npz")
    with pytest.raises(UserError, match="six networks of its own"):
        find_measure("fdr6:network=inception_fid")


def test_images_of_512_pixels_have_networks_of_their_own(tmp_path, validation):
    with pytest.raises(UserError, match="published for 512 pixels; give validation=FILE"):
        find_measure("fdr6:pixels=512")
    with pytest.raises(UserError, match="pixels is one of 256, 512"):
        find_measure("fdr6:pixels=384")
    with pytest.raises(UserError, match="no statistics of convnextv2_base_384 and of"):
        find_measure(f"fdr6:pixels=512,validation={validation[0]}")
    stored = dict(zip(NETWORKS[512], validation[1].values(), strict=True))
    protocol = {"networks": {name: {"outputs": ["features"]} for name in stored}}
    larger = {(name, "features"): value for name, value in stored.items()}
    write_statistics(tmp_path / "larger.npz", larger, protocol)
    measure = find_measure(f"fdr6:pixels=512,validation={tmp_path}/larger.npz")
    assert [each.network for each in measure.inputs()] == list(NETWORKS[512])
    samples, reference = (dict(zip(measure.inputs(), of(k).values(), strict=True)) for k in (0, 1))
    found = measure.scores(samples, reference)
    assert found["fdr6"] == pytest.approx(np.mean([found[f"fdr_{n}"] for n in NETWORKS[512]]))


def test_validation_images_of_the_reference_are_refused(validation):
    path, of_validation = validation
    with pytest.raises(UserError, match="are the reference itself in inception_tensorflow"):
        find_measure(f"fdr6:validation={path}").scores(of(0), of_validation)


def test_fd_dinov2_has_a_network_of_its_own():
    measure = find_measure("fd_dinov2")
    (each,) = measure.inputs()
    assert each[:2] == ("dinov2_vitl14", "features")
    samples, reference = (next(iter(of(seed).values())) for seed in (0, 1))
    assert measure.scores({each: samples}, {each: reference}) == {
        "fd_dinov2": frechet_distance_of(samples, reference)
    }
