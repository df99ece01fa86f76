"""Scores while a stage trains: each once, whatever kills the run, and without a trace in it."""

import jax
import numpy as np
import pytest

from sphere_jax.training.loop import Curve, train
from sphere_jax.training.run_log import RunLog, Stopwatch, read_rows, seconds_before
from sphere_jax.training.signals import Interrupted


class Killed(BaseException):
    """The process is gone: nothing after this runs."""


@pytest.fixture
def start(mesh, tmp_path):
    """`start(task, name, every, then)`: trains with a score of the weights every so many steps."""

    def run(task, name, every=3, then=lambda count: None):
        log, calls = RunLog(tmp_path / name), []

        def score(params):
            calls.append(float(np.abs(np.asarray(params["line"]["kernel"])).sum()))
            then(len(calls))
            return {"size": calls[-1]}

        try:
            folder = tmp_path / name / "checkpoints"
            curve = Curve(score, every) if every else None
            params = train(task, mesh, folder, log, 1e9, lambda step, pictures: None, curve)
        finally:
            log.close()
        return jax.tree.map(np.asarray, params)

    return run


def curve(tmp_path, name):
    """`(step, images, size)` of its rows, and their seconds."""
    rows = [r for r in read_rows(tmp_path / name / "metrics.jsonl") if "images_trained" in r]
    seconds = [row["training_seconds"] for row in rows]
    return [(row["step"], row["images_trained"], row["size"]) for row in rows], seconds


def test_scores_come_when_due_and_change_nothing(start, task, tmp_path):
    plain, scored = start(task(), "plain", every=0), start(task(), "scored")
    jax.tree.map(np.testing.assert_array_equal, plain, scored)
    points, seconds = curve(tmp_path, "scored")
    assert [point[:2] for point in points] == [(3, 24), (6, 48), (8, 64)]
    assert len({size for *_, size in points}) == 3
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert curve(tmp_path, "plain") == ([], [])


@pytest.mark.parametrize("checkpoint_every", [2, 3])
def test_a_kill_neither_misses_nor_doubles_a_score(start, task, tmp_path, checkpoint_every):
    due = {"checkpoint_every": checkpoint_every}
    start(task(**due), "whole")
    for attempt in range(1, 4):  # killed in the first, second and third score of a start

        def die(count, attempt=attempt):
            if count == min(attempt, 2):
                raise Killed

        with pytest.raises(Killed):
            start(task(**due), "run", then=die)
    start(task(**due), "run")
    assert curve(tmp_path, "run")[0] == curve(tmp_path, "whole")[0]


def test_training_time_goes_on_after_a_stop_and_leaves_scoring_out(
    start, task, tmp_path, monkeypatch
):
    now = [100.0]

    def tick():  # a second for every look at the clock
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr("sphere_jax.training.run_log.time.monotonic", tick)

    def slow(count):
        now[0] += 1000.0
        if count == 1 and stop:
            import signal

            signal.raise_signal(signal.SIGTERM)

    stop = True
    with pytest.raises(Interrupted, match="saved at step 4"):
        start(task(), "run", then=slow)
    stop = False
    start(task(), "run", then=slow)
    _, seconds = curve(tmp_path, "run")
    assert len(seconds) == 3 and 0.0 < seconds[0] < seconds[1] < seconds[2] < 1000.0


def test_a_stopwatch_stands_still_in_a_pause(monkeypatch):
    now = [5.0]
    monkeypatch.setattr("sphere_jax.training.run_log.time.monotonic", lambda: now[0])
    watch = Stopwatch(7.0)
    now[0] += 1
    assert watch.seconds == 7.0  # not started
    watch.start()
    now[0] += 2
    with watch.pause():
        now[0] += 4
        assert watch.seconds == 9.0
    now[0] += 8
    assert watch.seconds == 17.0


def test_seconds_at_a_checkpoint_between_two_rows():
    def row(stage, step, seconds):
        return {"stage": stage, "step": step, "training_seconds": seconds}

    rows = [row("flow", 10, 4.0), row("flow", 20, 8.0), row("vae", 15, 99.0)]
    rows.append({"stage": "flow", "step": 22, "heldout_loss": 1.0})
    assert seconds_before(rows, "flow", 20) == 8.0
    assert seconds_before(rows, "flow", 25) == 10.0
    assert seconds_before(rows, "flow", 15) == pytest.approx(6.0)
    assert seconds_before(rows, "flow", 0) == seconds_before([], "flow", 5) == 0.0
