"""`results.json` marks a run as finished, so it is written last."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run

from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import load_config
from sphere_jax.data.class_names import Classes
from sphere_jax.evaluation.score import Score
from sphere_jax.methods.base import Method
from sphere_jax.runs import reporting
from sphere_jax.runs.drawing import Samples
from sphere_jax.runs.system import System


def write_files(run):
    latents = np.zeros((2, 2, 2, 4), np.float32)
    sampler = System(run.config).generator.sampler
    samples = Samples(latents, np.zeros(2, np.int32), {}, sampler)
    reporting.write_files(run, samples, None, None, {"seed": 0}, [], {})


def test_scores_of_a_training_in_other_features(tmp_path):
    """The run may be scored again in features that its curve does not have."""
    path, *flags = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]
    run = SimpleNamespace(config=load_config(path, [*flags, "--config.evaluation.samples=1000"]))
    row = {"stage": "flow", "images_trained": 8, "training_seconds": 1.0, "recall_old": 0.5}
    rows = [row | {"step": step} for step in (1, 2)]
    scored = Score({"recall_new": 0.5}, {"recall_new": 0.9}, None, 1000)
    old = replace(scored, real_data={"recall_old": 1.0})
    for now, dashed in ((scored, False), (old, True)):
        (section,) = reporting._curve_section(run, now, rows)
        (picture,) = section.blocks
        assert ("dashed" in picture.caption) == dashed


def test_one_point_is_a_number_and_no_curve():
    path, *flags = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]
    run = SimpleNamespace(config=load_config(path, flags))
    score = {"stage": "flow", "step": 12, "images_trained": 8, "training_seconds": 1.0}
    (section,) = reporting._curve_section(run, None, [score | {"recall_a": 0.5}])
    (table,) = section.blocks
    assert table.header[1] == "step 12"
    assert table.rows == [["Recall (real inside generated), a features", 0.5]]

    rows = [{"stage": "vae", "step": step, "loss": 2.0} for step in (1, 2)]
    (section,) = reporting._loss_section([*rows, {"stage": "flow", "step": 5, "loss": 3.0}])
    curve, table = section.blocks
    assert curve.size[0] < 400  # one panel
    assert table.rows == [["flow", "loss", 5, 3.0]]
    assert reporting._loss_section([]) == []


def write_stages(run):
    reporting.write_stages(run, {"seed": 0})


@pytest.mark.parametrize("write", [write_files, write_stages])
def test_results_are_written_after_the_report(tmp_path, monkeypatch, write):
    path, *flags = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]
    config = load_config(path, flags)
    nothing, methods = ({name: of() for name in config.stages} for of in (dict, Method))
    found = dict(config=config, workdir=tmp_path, methods=methods, classes=Classes(10))
    run = SimpleNamespace(**found, arrays=nothing, metrics=nothing)

    def full(*given):
        raise UserError("Cannot write report.html (No space left on device).")

    with monkeypatch.context() as disk:
        disk.setattr(reporting.page, "write_report", full)
        with pytest.raises(UserError, match="No space left"):
            write(run)
    assert not (tmp_path / "results.json").exists()
    write(run)
    assert (tmp_path / "results.json").exists() and (tmp_path / "report.html").exists()
