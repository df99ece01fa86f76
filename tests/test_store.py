"""Runs whose checkpoints are in a bucket: what goes with them, and what does not."""

import tiny_run
from refusals import refusal_of

from sphere_jax import compare
from sphere_jax.common.files import write_json
from sphere_jax.config.reading import to_dict
from sphere_jax.runs.sharing import take_stages

STORE = "--config.checkpoints.store=gs://bucket/run"


def test_arms_are_compared_in_one_folder(tmp_path):
    flags = [*tiny_run.FLAGS, f"--workdir={tmp_path / 'c'}", "--vary=space.path=linear,slerp"]
    words = refusal_of(compare.main, [*flags, STORE])
    assert "Arms share checkpoints in --workdir: leave config.checkpoints.store out." in words
    assert not (tmp_path / "c").exists()


def test_stages_are_not_copied_out_of_a_bucket(tmp_path):
    other = tiny_run.unstarted(tmp_path / "other", *tiny_run.FLAGS, STORE)
    write_json(tmp_path / "other" / "config.json", {"config": to_dict(other.config)})
    run = tiny_run.unstarted(tmp_path / "run", *tiny_run.FLAGS)
    words = refusal_of(take_stages, run, tmp_path / "other")
    assert "are in gs://bucket/run, and are not copied from there" in words


def test_options_of_checkpoints_move_no_weights(tmp_path):
    """A run folder of before has none of them, and may be given them later."""
    flags = [STORE, "--config.checkpoints.keep_last=5"]
    before, now = (
        tiny_run.unstarted(tmp_path, *tiny_run.FLAGS, *more).records.depends("vae")
        for more in ([], flags)
    )
    assert before == now and not [key for key in now if "checkpoints" in key]
