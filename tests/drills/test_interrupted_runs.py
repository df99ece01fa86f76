"""kill -9, SIGINT and SIGTERM at any moment of a run, a clock that goes back, a second run."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from drilled import FLAGS, Nursery, check_same

from sphere_jax.training.run_log import read_rows, write_rows

pytestmark = pytest.mark.slow  # 4 minutes: about 80 starts
KILLS = int(os.environ.get("DRILL_KILLS", "50"))
SEED = int(os.environ.get("DRILL_SEED", "0"))
MOST = 160  # changes of files before a kill, of some 420 in a whole run


@pytest.mark.timeout(3600)
def test_kill_9_at_any_moment_gives_the_same_bits(nursery, whole, tmp_path):
    """Right at a change of a file, or up to 60 ms after it. Each start is killed, and goes on from
    what the one before has left; once a run ends, another one begins."""
    choose, workdir, killed = random.Random(SEED), tmp_path / "run", []
    line = ("main", *FLAGS, f"--workdir={workdir}")
    note = tmp_path / "note"
    while len(killed) < KILLS:
        last, after = choose.randint(1, MOST), choose.choice([0, choose.uniform(0, 60)])
        hooks = [("kill_at", str(workdir), last, after, str(note))]
        code, out, err = nursery.run(*line, hooks=hooks)
        said = f"seed {SEED}, kills {killed}\n{out}\n{err}"
        if code == 0:  # it had so few changes left
            check_same(workdir, whole)
            shutil.rmtree(workdir)
            continue
        assert code == -signal.SIGKILL, said
        killed.append(f"{after:.0f} ms after {note.read_text()}")
    code, out, err = nursery.run(*line)
    assert code == 0, f"seed {SEED}, kills {killed}\n{out}\n{err}"
    print("\n".join(killed))
    check_same(workdir, whole)


PHASES = {  # a function, which of its calls
    "start": ("sphere_jax.runs.stages:check_batch", 1),
    "compile": ("jax._src.compiler:compile_or_get_cached", 9),
    "measuring": ("sphere_jax.runs.stages:_measured_with", 1),
}
TRAINING = {  # those of a stage, from its beginning
    "training": ("sphere_jax.training.step_log:StepLog.add", 3),
    "save": ("sphere_jax.training.checkpoints:Checkpoints.save", 2),
    "checksums": ("sphere_jax.training.checksums:Checksums.write", 2),
    "preview": ("sphere_jax.runs.stages:save_grid", 1),
    "scoring on the way": ("sphere_jax.runs.scoring:point_of_curve", 1),
    "keeping the best": ("sphere_jax.training.best:KeepBest.offer", 1),
}
LAST = {
    "drawing": ("sphere_jax.runs.drawing:Drawer.draw", 1),
    "scoring": ("sphere_jax.runs.scoring:score_images", 1),
    "report": ("sphere_jax.evaluation.page:write_report", 1),
}


@pytest.mark.timeout(3600)
def test_signals_in_every_phase(nursery, whole, tmp_path):
    """Each is answered by one sentence and exit code 130, and the next start goes on."""
    workdir = tmp_path / "run"
    line = ("main", *FLAGS, f"--workdir={workdir}")

    def end(code: int, *hooks) -> tuple[str, str]:
        found, out, err = nursery.run(*line, hooks=hooks)
        assert found == code, f"{found} and not {code}: {hooks}\n{out}\n{err}"
        return out, err

    for phase, (place, call) in (PHASES | TRAINING | LAST).items():
        for number in (signal.SIGINT, signal.SIGTERM):
            if phase in TRAINING:
                begin_flow(workdir, whole)
            out, err = end(130, ("signal_in", place, call, int(number)))
            assert f"signal {int(number)} in {place}" in out, f"{phase}: {out}\n{err}"
            assert err.count("\n") == 1 and err.startswith("Stopped"), f"{phase}: {err}"
    end(0)
    check_same(workdir, whole)


def begin_flow(workdir: Path, whole: Path) -> None:
    """The whole run as it was before its last stage began."""
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(whole, workdir)
    for path in list(workdir.rglob("*flow*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    rows = read_rows(workdir / "metrics.jsonl")
    write_rows(workdir / "metrics.jsonl", [row for row in rows if row["stage"] != "flow"])


@pytest.mark.timeout(900)
def test_a_clock_that_goes_back(nursery, whole, tmp_path):
    """By a year, at once, while it trains, or between two starts: the same bits."""
    workdir = tmp_path / "run"
    line = ("main", *FLAGS, f"--workdir={workdir}")
    note = str(tmp_path / "note")
    hooks = [("clock_goes_back", 40), ("kill_at", str(workdir), 70, 0, note)]
    code, out, err = nursery.run(*line, hooks=hooks)
    assert code == -signal.SIGKILL, out + err
    for path in workdir.rglob("*"):  # written in what is now the future
        os.utime(path, (2e9, 2e9))
    code, out, err = nursery.run(*line, hooks=[("clock_goes_back", 0)])
    assert code == 0 and "Traceback" not in err, out + err
    check_same(workdir, whole)


@pytest.mark.timeout(900)
def test_the_second_of_two_runs_in_a_folder_is_refused(nursery, whole, tmp_path, request):
    workdir = tmp_path / "run"
    line = ("main", *FLAGS, f"--workdir={workdir}")
    other = Nursery(tmp_path)
    request.addfinalizer(other.close)
    first, out = nursery.start(*line)
    while not (workdir / "config.json").exists():
        time.sleep(0.1)
    code, _, err = other.run(*line)
    assert code == 2 and f"is in use by another run, process {first} on host" in err
    assert err.count("\n") == 1
    code, out, err = nursery.end(out)
    assert code == 0, out + err
    check_same(workdir, whole)
