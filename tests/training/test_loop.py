"""The loop: it resumes to the same bits, stops on a signal, and never trains on NaN."""

import dataclasses
import json
import shutil
import signal
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal_of
from safetensors.numpy import load_file

from sphere_jax.common import interruption
from sphere_jax.common.errors import UserError
from sphere_jax.common.interruption import Interrupted
from sphere_jax.common.progress import duration
from sphere_jax.config.options import OptimizerOptions
from sphere_jax.data.pipeline import Batches, index_batches
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.methods.base import Method
from sphere_jax.training.ema_snapshots import snapshot_totals
from sphere_jax.training.heldout import HeldOut
from sphere_jax.training.run_log import RunLog, read_rows
from sphere_jax.training.step_log import StepLog
from sphere_jax.training.task import Task, stage_key
from sphere_jax.training.throughput import Throughput, TrainingTimer


def rows(folder):
    return read_rows(folder / "metrics.jsonl")


def kinds(rows):
    """(step, whether a held-out row) of every row: what must be there once."""
    return [(row["step"], "heldout_loss" in row) for row in rows]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def interrupt_at(step, number=signal.SIGTERM):
    def show(at, images):
        if at == step:
            signal.raise_signal(number)

    return show


def test_rows_and_pictures_are_written_when_due(whole):
    assert whole.shown == [(4, (2, 8, 8, 1)), (8, (2, 8, 8, 1))]
    assert sorted(kinds(rows(whole.folder))) == [
        (2, False), (4, False), (4, True), (6, False), (8, False), (8, True)
    ]  # fmt: skip
    last = [row for row in rows(whole.folder) if row["step"] == 8 and "loss" in row][0]
    assert last["finite"] and last["gradient_norm"] > 0 and last["images_per_second"] > 0
    assert 0 <= last["input_wait"] <= 1


def test_the_held_out_loss_is_the_mean_over_micro_batches(task, feed):
    """No batch is larger than training's, which the devices can hold."""
    given = task(batch_size=8, accumulate=2)
    examples, method = feed().heldout, given.method
    held = HeldOut(given, examples)
    assert [len(batch["labels"]) for batch, _ in held._batches] == [4] * 5
    key = stage_key(given.seed, "held-out")
    params = method.init(key, {})
    loss, _ = method.loss(params, {}, examples.arrays, method.keys(key, 20))
    assert held.metrics(params)["heldout_loss"] == pytest.approx(float(loss), rel=1e-5)
    small = task(batch_size=64)
    assert len(HeldOut(small, examples)._batches[0][0]["labels"]) == 20


def test_the_weights_that_the_options_name(start, task, whole):
    """Samples may be drawn with the raw weights (docs/systems/sphere_encoder.md#optimization)."""
    average, raw = whole.params, start(task(weights="raw"), "raw")
    same = start(task(weights="raw", ema_decay=0.0), "same")
    assert np.abs(average["line"]["kernel"] - raw["line"]["kernel"]).max() > 1e-6
    assert_equal(raw, same)
    no_memory = start(task(ema_decay=0.0), "no_memory")
    np.testing.assert_allclose(no_memory["line"]["kernel"], raw["line"]["kernel"], rtol=1e-6)


def test_input_is_waited_for_only_where_the_devices_have_run_out_of_work(
    task, tmp_path, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    throughput = Throughput(8, 1.0, 1.0)
    log = StepLog(task(), RunLog(tmp_path), throughput, TrainingTimer(), 0)
    with log.waiting_for_input():  # before the first step
        now[0] += 1.0
    throughput.restart()
    for ready, seconds in ((True, 1.0), (False, 2.0)):
        log._unread = 1, {"loss": SimpleNamespace(is_ready=lambda ready=ready: ready)}
        with log.waiting_for_input():
            now[0] += seconds
    log._unread = None  # after a flush, which waits for them
    with log.waiting_for_input():
        now[0] += 3.0
    now[0] += 2.0
    throughput.step_done()
    assert throughput.rates()["input_wait"] == 0.5


@pytest.fixture(autouse=True)
def each_signal_counts(monkeypatch):
    """Those of one test after those of another, however soon."""
    monkeypatch.setattr(interruption, "ONE", 0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_start_ends_in_the_same_bits(
    start, task, tmp_path, whole, number
):
    before = signal.getsignal(number)
    # Raised in the preview of step 4: step 5, where nothing is due, is saved.
    with pytest.raises(Interrupted, match="toy: saved at step 5 of 8"):
        start(task(), show=interrupt_at(4, number))
    assert signal.getsignal(number) == before
    assert_equal(start(task()), whole.params)
    assert sorted(kinds(rows(tmp_path / "run"))) == sorted(kinds(rows(whole.folder)))


def test_a_signal_at_the_last_step_stops_the_run_too(start, task, whole):
    with pytest.raises(Interrupted, match="saved at step 8 of 8"):
        start(task(preview_every=7), show=interrupt_at(7))
    assert_equal(start(task(preview_every=7)), whole.params)


def test_a_signal_while_the_last_step_is_evaluated_is_not_lost(start, task, whole):
    with pytest.raises(Interrupted, match="saved at step 8 of 8"):
        start(task(), show=interrupt_at(8))
    assert_equal(start(task()), whole.params)


def test_a_signal_before_the_first_step_stops_at_once(start, task, whole, monkeypatch):
    """There is nothing to save, and compiling may take minutes."""
    given = dataclasses.replace(task())  # none of its programs is compiled
    monkeypatch.setattr(Task, "train_step", property(lambda _: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        start(given)
    monkeypatch.undo()
    assert_equal(start(task()), whole.params)


class Killed(BaseException):
    """The process is gone: nothing after this runs."""


def test_a_kill_loses_no_row_and_repeats_none(start, task, tmp_path, whole):
    def show(step, images):
        if step == 8:
            raise Killed

    with pytest.raises(Killed):
        start(task(), show=show)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "toy", "st')  # a row cut in half
    assert_equal(start(task()), whole.params)
    written = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sorted(kinds(map(json.loads, written))) == sorted(kinds(rows(whole.folder)))
    losses = {r["step"]: r["loss"] for r in rows(tmp_path / "run") if "loss" in r}
    assert losses == {r["step"]: r["loss"] for r in rows(whole.folder) if "loss" in r}


def snapshots(tmp_path, name):
    """Every snapshot of the averages that a run saved: file name to tensors."""
    files = (tmp_path / name / "checkpoints-ema").glob("*")
    return {file.name: load_file(file) for file in files}


def test_snapshots_of_averages_are_the_same_after_a_kill(start, task, tmp_path, capsys, whole):
    tracked = task(ema_profiles=(0.1, 0.25), ema_snapshot_every=3)
    uninterrupted = start(tracked, "uninterrupted")

    def show(step, images):
        if step == 4:  # after the snapshots of step 3, before the checkpoint of step 4 is complete
            raise Killed

    with pytest.raises(Killed):
        start(tracked, show=show)
    stale = tmp_path / "run" / "checkpoints-ema" / "00000007-0.1.safetensors"
    shutil.copy(stale.with_name("00000003-0.1.safetensors"), stale)
    own = stale.with_name("mine.safetensors")  # of `sphere_jax.ema --out`
    own.touch()
    assert_equal(start(tracked), uninterrupted)
    expected = snapshots(tmp_path, "uninterrupted")
    assert sorted(expected) == [
        f"{step:08d}-{width}.safetensors" for step in (3, 6, 8) for width in (0.1, 0.25)
    ]
    count, size = snapshot_totals(tracked.options, {"kernel": np.ones((4, 3)), "bias": np.ones(3)})
    stored = sum(array.nbytes for tensors in expected.values() for array in tensors.values())
    assert (len(expected), stored) == (count, size)
    assert "toy: stores 6 snapshots of averages, 360 B in all" in capsys.readouterr().out
    own.unlink()
    found = snapshots(tmp_path, "run")
    assert sorted(found) == sorted(expected)
    assert_equal(found, expected)
    last = [expected[f"00000008-{width}.safetensors"]["line/kernel"] for width in (0.1, 0.25)]
    assert last[0].dtype == np.float32
    assert np.abs(last[0] - last[1]).max() > 1e-6
    # They do not change the training.
    assert_equal(uninterrupted, whole.params)


def test_a_finished_stage_is_not_trained_again(start, task, tmp_path, whole):
    shutil.copytree(whole.folder, tmp_path / "run")
    shown = []
    assert_equal(start(task(), show=lambda step, images: shown.append(step)), whole.params)
    assert shown == []


def test_more_steps_at_a_constant_rate_go_on_to_the_same_bits(start, task, whole):
    start(task(steps=6))
    assert_equal(start(task()), whole.params)


def test_logging_intervals_do_not_change_the_weights(start, task):
    often = start(task(log_every=1, checkpoint_every=1, preview_every=1), "often")
    seldom = start(task(log_every=99, checkpoint_every=99, preview_every=99), "seldom")
    assert_equal(often, seldom)


def poisoned_rows(task, feed, first_step, last_step):
    """Rows of the data that batches first_step..last_step (from 1) read, and none before them."""
    sharding = batch_sharding(task.mesh)
    batches = Batches(feed.train, task.options.batch_size, task.seed, sharding)
    read = [np.asarray(next(batches)["labels"]) for _ in range(last_step)]
    return [int(labels[0]) for labels in read[first_step - 1 :]]


def test_nan_stops_with_one_sentence_and_a_dump(start, task, feed, tmp_path):
    bad = feed(poisoned_rows(task(), feed(), 3, 3))
    for _ in range(2):  # the second start finds the first one's dump
        with pytest.raises(UserError) as stopped:
            start(task(), feed=bad)
        message = str(stopped.value)
        assert "toy: " in message and "loss" in message and "not finite at step 3" in message
        assert "config.toy.optimizer.learning_rate" in message and "\n" not in message
    dump = tmp_path / "run" / "checkpoints-nonfinite" / "3"
    assert (dump / "params").is_dir()
    written = [row for row in rows(tmp_path / "run") if row["step"] == 3]
    assert len(written) == 1 and written[0]["loss"] == "nan" and not written[0]["finite"]


def test_nan_that_a_frozen_part_makes_names_its_image(start, task, feed, mesh):
    class OnFrozen(type(task().method)):
        def made_by_frozen(self, frozen, batch):
            return batch["latents"]

    encoding = Task("toy", OnFrozen(), task().options, {}, seed=0, mesh=mesh)
    third = index_batches(64, 8, seed=0)[2][0].tolist()
    words = refusal_of(start, encoding, feed=feed([third[5]]))
    assert f"not finite for image {third[5]} of 64: check its weights" in words
    assert "at step 3" in words and "learning_rate" not in words
    words = refusal_of(start, encoding, "two", feed=feed(third[1:4]))
    assert f"image {third[1]} of 64 and 2 more of the 8 images of this step" in words


def test_nan_within_the_budget_is_skipped(start, task, feed, tmp_path):
    bad = feed(poisoned_rows(task(), feed(), 3, 4))
    ema = start(task(skip_nonfinite=2), feed=bad)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ema))
    train_rows = [row for row in rows(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in train_rows if not row["finite"]] == [3, 4]
    assert len({row["step"] for row in train_rows}) == len(train_rows)
    with pytest.raises(UserError, match="not finite at step 4"):
        start(task(skip_nonfinite=1), "tighter", feed=bad)


def test_the_budget_counts_over_restarts(start, task, feed):
    clean, once = feed(), task(skip_nonfinite=1)
    bad = feed(poisoned_rows(once, clean, 3, 3) + poisoned_rows(once, clean, 7, 7))
    with pytest.raises(Interrupted):
        start(once, feed=bad, show=interrupt_at(4))
    with pytest.raises(UserError, match="not finite at step 7"):
        start(once, feed=bad)


def test_every_stage_has_its_own_key():
    keys = {
        jax.random.key_data(stage_key(seed, name)).tobytes()
        for seed in (0, 1)
        for name in ("vae", "flow")
    }
    assert len(keys) == 4


def test_durations():
    assert [duration(s) for s in (0, 75, 3700, float("inf"))] == ["0:00", "1:15", "1:01:40", "?"]


class Finetuning(Method):
    """Starts from a frozen part and trains a copy of it, as the decoder stage does."""

    trains = ("line",)

    def init(self, key, frozen):
        return {"line": jax.tree.map(jnp.copy, frozen["line"])}

    def loss(self, params, frozen, batch, keys):
        moved = params["line"]["kernel"] - frozen["line"]["kernel"] - 1.0
        return jnp.mean(moved**2) + 0.0 * jnp.sum(batch["latents"]), {}

    def preview(self, params, frozen, batch, key):
        return None


def test_frozen_parts_outlive_the_donated_state_and_do_not_change(start, task):
    kernel = jnp.arange(12.0).reshape(4, 3)
    frozen = {"line": {"kernel": kernel}}
    settings = dict(steps=80, log_every=80, checkpoint_every=80, preview_every=80)
    plain = task(**settings, optimizer=OptimizerOptions(learning_rate=0.1))
    trained = start(dataclasses.replace(plain, method=Finetuning(), frozen=frozen))
    np.testing.assert_array_equal(kernel, np.arange(12.0).reshape(4, 3))  # alive, and the same
    np.testing.assert_allclose(trained["line"]["kernel"], kernel + 1.0, atol=0.02)
