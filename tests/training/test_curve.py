"""Scores while a stage trains: each once, whatever kills the run, and without changing it."""

import signal

import jax
import numpy as np
import pytest

from sphere_jax.common.interruption import Interrupted
from sphere_jax.training.best import KeepBest, best_folder
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.evaluator import Curve
from sphere_jax.training.run_log import RunLog, read_rows, training_seconds
from sphere_jax.training.throughput import TrainingTimer


class Killed(BaseException):
    """The process is gone: nothing after this runs."""


def scoring(then=lambda count: None, **options):
    """Scores the size of the weights every 3 steps; `then(count)` is called in every score."""
    calls = []

    def score(params, what):
        assert what.startswith("toy-") and what.endswith(("-ema", "-raw"))
        calls.append(size_of(params))
        then(len(calls))
        return {"size": calls[-1]}

    return Curve(score, every=3, **options)


def size_of(params):
    return float(np.abs(np.asarray(params["line"]["kernel"])).sum())


def points(folder):
    """`(step, images, size)` of the scores' rows, and their seconds."""
    rows = [r for r in read_rows(folder / "metrics.jsonl") if "images_trained" in r]
    seconds = [row["training_seconds"] for row in rows]
    return [(row["step"], row["images_trained"], row["size"]) for row in rows], seconds


@pytest.fixture(scope="module")
def scored(run_in, task, tmp_path_factory):
    """The folder and parameters of an uninterrupted run with scores."""
    folder = tmp_path_factory.mktemp("scored")
    return folder, run_in(folder, task(), curve=scoring())


def test_scores_are_computed_when_due_and_change_nothing(whole, scored):
    folder, params = scored
    jax.tree.map(np.testing.assert_array_equal, whole.params, params)
    found, seconds = points(folder)
    assert [point[:2] for point in found] == [(3, 24), (6, 48), (8, 64)]
    assert len({size for *_, size in found}) == 3
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert points(whole.folder) == ([], [])


@pytest.mark.parametrize("checkpoint_every", [2, 3])
def test_a_kill_neither_misses_nor_doubles_a_score(start, task, tmp_path, scored, checkpoint_every):
    due = task(checkpoint_every=checkpoint_every)
    for attempt in range(1, 4):  # killed in the first, second and third score of a start

        def die(count, attempt=attempt):
            if count == min(attempt, 2):
                raise Killed

        with pytest.raises(Killed):
            start(due, curve=scoring(die))
    start(due, curve=scoring())
    assert points(tmp_path / "run")[0] == points(scored[0])[0]


def kept(folder):
    """The step whose weights are kept, and their size."""
    with Checkpoints(best_folder(folder / "checkpoints"), keep=1) as checkpoints:
        step = checkpoints.latest()
        shapes = {"line": {"kernel": jax.ShapeDtypeStruct((4, 3), np.float32),
                           "bias": jax.ShapeDtypeStruct((3,), np.float32)}}  # fmt: skip
        return step, size_of(checkpoints.restore_item(step, "ema", shapes))


@pytest.mark.parametrize("lower", [True, False])
def test_the_weights_of_the_best_score_are_kept_whatever_kills_the_run(
    start, task, tmp_path, scored, lower
):
    found, _ = points(scored[0])
    step, _, size = (min if lower else max)(found, key=lambda point: point[2])
    best = {"keep_best": "size", "lower": lower}
    start(task(), "whole", curve=scoring(**best))
    assert kept(tmp_path / "whole") == (step, pytest.approx(size))
    for killed_in in (1, 2, 2):

        def die(count, killed_in=killed_in):
            if count == killed_in:
                raise Killed

        with pytest.raises(Killed):
            start(task(checkpoint_every=4), curve=scoring(die, **best))
    start(task(checkpoint_every=4), curve=scoring(**best))
    assert kept(tmp_path / "run") == (step, pytest.approx(size))
    assert points(tmp_path / "run")[0] == found


def test_what_was_kept_by_another_score_is_replaced(tmp_path, capsys):
    log, folder = RunLog(tmp_path), tmp_path / "checkpoints"
    for step, value in ((3, 1.0), (6, float("nan")), (9, 2.0)):
        log.write("toy", step, {"size": value, "loss": -value})
    log.close()

    def best(metric, lower, first=9):
        return KeepBest(folder, metric, lower, log.path, "toy", first)

    def offer(keeper, step, value):
        weights = {"line": {"kernel": np.full((4, 3), step, np.float32),
                            "bias": np.zeros(3, np.float32)}}  # fmt: skip
        keeper.offer(step, {"size": value, "loss": value}, "ema", weights)
        return kept(tmp_path)[0]

    assert offer(best("size", lower=True), 12, 5.0) == 12  # nothing is kept yet: 1.0 is lost
    assert "has no size" not in capsys.readouterr().out
    best("size", lower=True, first=12)  # its row is lost
    assert "has no size of the weights of step 12 that were kept" in capsys.readouterr().out
    log = RunLog(tmp_path)
    log.write("toy", 12, {"size": 5.0, "loss": -5.0})
    log.close()
    assert offer(best("size", lower=False, first=12), 15, 4.0) == 12
    assert offer(best("loss", lower=False, first=12), 15, -4.0) == 15  # 12 is not its best
    assert "has no loss" not in capsys.readouterr().out
    assert offer(best("loss", lower=False, first=15), 18, float("nan")) == 15


def test_both_kinds_of_weights_are_scored(start, task, tmp_path, scored):
    start(task(), curve=scoring(both=True))
    rows = [r for r in read_rows(tmp_path / "run" / "metrics.jsonl") if "images_trained" in r]
    assert [(row["step"], row["size"]) for row in rows] == [
        (step, size) for step, _, size in points(scored[0])[0]
    ]
    assert all(row["size_raw"] != row["size"] for row in rows)


class Clock:
    """Replaces the module `time` in one module: each reading advances it by `tick`."""

    def __init__(self, now=100.0, tick=1.0):
        self.now, self.tick = now, tick

    def monotonic(self):
        self.now += self.tick
        return self.now


def test_training_time_continues_after_a_stop_and_leaves_scoring_out(
    start, task, tmp_path, monkeypatch
):
    clock, stop = Clock(), True
    monkeypatch.setattr("sphere_jax.training.throughput.time", clock)

    def slow(count):
        clock.now += 1000.0
        if count == 1 and stop:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved at step 4"):
        start(task(), curve=scoring(slow))
    stop = False
    start(task(), curve=scoring(slow))
    _, seconds = points(tmp_path / "run")
    assert len(seconds) == 3 and 0.0 < seconds[0] < seconds[1] < seconds[2] < 1000.0


def test_a_timer_stops_in_a_pause(monkeypatch):
    clock = Clock(5.0, tick=0.0)
    monkeypatch.setattr("sphere_jax.training.throughput.time", clock)
    timer = TrainingTimer(7.0)
    clock.now += 1
    assert timer.seconds == 7.0  # not started
    timer.start()
    clock.now += 2
    with timer.pause():
        clock.now += 4
        assert timer.seconds == 9.0
    clock.now += 8
    assert timer.seconds == 17.0


def test_seconds_at_a_checkpoint_between_two_rows():
    def row(stage, step, seconds):
        return {"stage": stage, "step": step, "training_seconds": seconds}

    rows = [row("flow", 10, 4.0), row("flow", 20, 8.0), row("vae", 15, 99.0)]
    rows.append({"stage": "flow", "step": 22, "heldout_loss": 1.0})
    assert training_seconds(rows, "flow", 20) == 8.0
    assert training_seconds(rows, "flow", 25) == 10.0
    assert training_seconds(rows, "flow", 15) == pytest.approx(6.0)
    assert training_seconds(rows, "flow", 0) == training_seconds([], "flow", 5) == 0.0
