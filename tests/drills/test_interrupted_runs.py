"""kill -9, SIGINT and SIGTERM at any moment of a run and of other commands, one of two processes
that is killed, a clock that goes back, a second run."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import several
import tiny_run
from drilled import FLAGS, SEED, Nursery, check_same, raised

from sphere_jax.data.latent_cache import read_index
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.run_log import read_rows, write_rows

pytestmark = pytest.mark.slow  # 5 minutes: about 100 starts
KILLS = int(os.environ.get("DRILL_KILLS", "50"))
MOST = 110  # changes of files before a kill, of some 420 in a whole run
AIMS = ("saving", "scoring", "", "", "")  # of `hooks.kill_at`, in turn


@pytest.mark.timeout(3600)
def test_kill_9_at_any_moment_gives_the_same_bits(nursery, whole, tmp_path):
    """Right at a change of a file, or up to 60 ms after it; of five kills, one is while it saves a
    checkpoint, and one while it scores. Each start is killed, and goes on from what the one before
    has left; once a run ends, another one begins."""
    choose, workdir, killed = random.Random(SEED), tmp_path / "run", []
    line = ("main", *FLAGS, f"--workdir={workdir}")
    note = tmp_path / "note"
    while len(killed) < KILLS:
        last, after = choose.randint(1, MOST), choose.choice([0, choose.uniform(0, 60)])
        aim = AIMS[len(killed) % len(AIMS)]
        hooks = [("kill_at", str(workdir), last, after, str(note), aim)]
        code, out, err = nursery.run(*line, hooks=hooks)
        said = f"seed {SEED}, kills {killed}\n{out}\n{err}"
        if code == 0:  # it had so few changes left
            check_same(workdir, whole)
            shutil.rmtree(workdir)
            continue
        assert code == -signal.SIGKILL, said
        killed.append(f"{after:.0f} ms after {note.read_text()}")  # "CHANGE | PHASES"
    code, out, err = nursery.run(*line)
    assert code == 0, f"seed {SEED}, kills {killed}\n{out}\n{err}"
    print("\n".join(killed))
    for phase in filter(None, AIMS):
        hit = [line for line in killed if phase in line.rpartition(" | ")[2].split()]
        assert len(hit) >= KILLS // len(AIMS), f"{phase}: {hit}"
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
    "restoring": ("sphere_jax.training.checkpoints:Checkpoints.restore", 1),
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


PREPARE = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.stages = ("flow",)
    config.data = dict(source="npz", path="{0}/images.npz", image_size=8, channels=3, num_classes=2)
    config.tokenizer = dict(name="tiny_vae", kind="taesd", pretrained="{0}/taesd.safetensors")
    config.flow = dict(method="flow", steps=2, batch_size=8)
    return config
"""
REPLACED = ("os:replace", 4)  # as a file is put in its place: the second or third one of several
COMMANDS = {  # flags with {run}, {config} and {out}; moments
    "prepare latents": (
        "prepare latents --config={config} --out={out} --shard_size=12 --batch=12",
        [REPLACED, ("sphere_jax.data.latent_cache:CacheWriter.write", 2)],
    ),
    "prepare images": (
        "prepare images --config={config} --out={out} --shard_size=12",
        [REPLACED, ("sphere_jax.data.record_writer:_write", 1)],
    ),
    "evaluate": (
        "evaluate --workdir={run} --num=20 --out={out}.json",
        [("sphere_jax.runs.scoring:score_images", 1), ("os:replace", 1)],
    ),
    "sample": (
        "sample --workdir={run} --num=4 --out={out}.npz",
        [("sphere_jax.runs.drawing:Drawer.draw", 1), ("os:replace", 1)],
    ),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A config of images and of a tokenizer that need no training."""
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(SEED)
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 2)
    tiny_run.write_tiny_vae(folder / "taesd.safetensors", rng)
    (folder / "config.py").write_text(PREPARE.format(folder))
    return folder / "config.py"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COMMANDS)
def test_signals_in_other_commands(nursery, whole, prepared, tmp_path, name):
    """One sentence and exit code 130, and nothing half written; the same command goes on to the
    same files."""
    text, moments = COMMANDS[name]
    run = shutil.copytree(whole, tmp_path / "run")

    def line(out: str) -> list[str]:
        return text.format(run=run, config=prepared, out=tmp_path / out / "x").split()

    def content(out: str) -> dict[str, bytes]:
        files = (path for path in (tmp_path / out).rglob("*") if path.is_file())
        return {path.relative_to(tmp_path / out): path.read_bytes() for path in files}

    (tmp_path / "whole").mkdir(), (tmp_path / "out").mkdir()
    code, out, err = nursery.run(*line("whole"))
    assert code == 0, out + err
    expected = content("whole")
    for (place, call), number in zip(moments, (signal.SIGINT, signal.SIGTERM), strict=True):
        hooks = [("signal_in", place, call, int(number))]
        code, out, err = nursery.run(*line("out"), hooks=hooks)
        said = f"{place}: {code}\n{out}\n{err}"
        assert code == 130 and f"signal {int(number)} in {place}" in out, said
        assert err.count("\n") == 1 and err.startswith("Stopped"), said
        for file, found in content("out").items():
            assert found == expected[file], f"{file} is half written: {said}"
    code, out, err = nursery.run(*line("out"))
    assert code == 0, out + err
    assert content("out") == expected


LOST = {  # what is run, which process is killed, and in which call
    "saving": ("main", 1, "sphere_jax.training.checksums:Checksums.take", 1),
    "scoring": ("evaluate", 1, "sphere_jax.evaluation.engine:collect", 1),
    "prepare latents": ("prepare", 1, "sphere_jax.data.latent_cache:CacheWriter.write", 1),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LOST)
def test_a_process_of_two_is_killed(whole, prepared, tmp_path, name):
    """The other one says so within 30 s, and nothing half written is taken for whole."""
    command, lost, place, call = LOST[name]
    workdir, images = tmp_path / "run", f"{prepared.parent / 'images.npz'}"
    flags = {
        "main": (*FLAGS, f"--workdir={workdir}"),
        "evaluate": (
            f"--samples={images}",
            f"--reference={images}",
            f"--pretrained={prepared}",
            "--metrics=frechet_distance:network=other_lab.colours",
        ),
        "prepare": ("latents", f"--config={prepared}", f"--out={workdir}", "--shard_size=20"),
    }[command]
    if command == "main":
        begin_flow(workdir, whole)
    path = f"{tiny_run.ROOT}:{tiny_run.ROOT / 'tests'}"  # of other_lab
    killed = (lost, place, call)
    with several.running(command, *flags, killed=killed, PYTHONPATH=path) as processes:
        for said in processes[lost].stdout:  # until it is killed
            if said == f"signal 9 in {place}\n":
                break
        at = time.monotonic()
        tiny_run.finish(processes[lost], -signal.SIGKILL, timeout=60)
        _, err = tiny_run.finish(processes[1 - lost], 75, timeout=60)
        took = time.monotonic() - at
    [sentence] = several.said(err)
    assert took < 30, f"{took:.0f} s: {err}"
    assert sentence.startswith(f"error: Process {lost} of this run has ended, so this one stops")
    if command == "main":
        with Checkpoints(workdir / "checkpoints" / "flow") as checkpoints:
            assert checkpoints.newest_whole() is None
    if command == "prepare":
        assert "is a latent cache that is not finished" in raised(read_index, workdir)


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
