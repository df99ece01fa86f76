"""One program on 1 and on 8 devices: the same training, checkpoints, samples and batches."""

from pathlib import Path

import numpy as np
import pytest
import tiny_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    script = Path(__file__).with_name("on_eight_devices.py")
    return tiny_run.on_devices(8, script, tmp_path_factory.mktemp("devices"), timeout=600)


def test_every_mesh_trains_to_the_same_weights(found):
    training = found["training"]
    for name, losses in training["losses"].items():
        assert len(losses) == 4
        np.testing.assert_allclose(losses, training["losses"]["1x1"], rtol=1e-4, err_msg=name)
    assert training["moved"] > 0.1
    assert max(training["averages"].values()) < 1e-4, training["averages"]  # steps of 1e-3


def test_a_device_holds_an_eighth_of_what_is_split(found):
    """On the mesh of 2 x 4: `zero` splits over `data` what `fsdp` has split."""
    assert found["training"]["sharded_arrays"] >= 3
    assert found["training"]["shards"] == [0.125]


def test_checkpoints_of_eight_devices_restore_on_any_number(found):
    assert found["training"]["restored"] == [0.0] * 4


def test_samples_agree_whatever_the_mesh_and_the_batch(found):
    sampling = found["sampling"]
    assert sampling["same_noise"] and sampling["contrast"] > 5
    assert max(sampling["images"].values()) <= 1, sampling["images"]


def test_every_device_gets_its_rows(found):
    rows = found["batches"]
    assert rows["8x1"] == rows["1x1"] and rows["2x4"] == rows["1x1"] and len(rows["1x1"]) == 16


def test_few_devices_take_more_micro_batches(found):
    """`accumulate` is 2; what is read only is not split."""
    assert found["micro_batches"] == {"1": 16, "4": 4, "8": 2, "3, read": 2}


def test_batches_that_do_not_fit_the_devices_are_refused(found):
    refusals = found["refusals"]
    assert "asks for 3 x 2 devices but there are 8" in refusals[0]
    assert "asks for 2 x 3 devices but there are 8" in refusals[1]
    assert "config.flow.batch_size=20 must be a multiple of the mesh's 8 devices" in refusals[2]
