"""What holds for every measure, found by name: facts, settings, keys, refusals."""

import dataclasses

import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.measures.base import Input, all_measures, find_measure
from sphere_jax.evaluation.statistics import Statistics


def rows(n=40, f=6, seed=0, shift=0.0):
    values = np.random.default_rng(seed).normal(size=(n, f)) + shift
    return values.astype(np.float32)


def given(measure, samples, reference):
    """What the measure takes, from rows that stand for all of its inputs."""

    def as_needed(inputs, x):
        return {each: Statistics.of(x) if each.needs == "statistics" else x for each in inputs}

    return (
        as_needed(measure.inputs(), samples),
        as_needed(measure.reference_inputs(), reference),
    )


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
