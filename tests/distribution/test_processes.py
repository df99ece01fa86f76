"""Two and four processes over the loopback do what one does, files included."""

import json
import re
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_run
from PIL import Image
from several import running, said

from sphere_jax.training.run_log import read_rows

STAGES = "--config.stages=vae,flow"
# Otherwise AdamW divides gradients near zero by their own rounding, and that by the order of sums.
LARGE_EPS = [f"--config.{stage}.optimizer.eps=1e-3" for stage in ("vae", "flow")]
SCORES = {"every": 6, "curve_samples": 20, "keep_best": "frechet_distance"}
FLAGS = [STAGES, *LARGE_EPS]
FLAGS += [f"--config.evaluation.{name}={value}" for name, value in SCORES.items()]


def started(workdir, *flags, **more):
    """`running`, of one main command."""
    mesh = "--config.mesh.fsdp=2"
    return running("main", *tiny_run.FLAGS, mesh, *flags, f"--workdir={workdir}", **more)


def scored_by_one_and_by(count, folder, *flags, devices):
    """What `evaluate` writes as one process and as `count`, and what each of the latter prints."""
    weights, path = folder / "weights.bin", f"{tiny_run.ROOT}:{tiny_run.ROOT / 'tests'}"
    weights.write_text("0" * 16)
    flags += (
        f"--pretrained={weights}",
        "--metrics=frechet_distance:network=other_lab.colours",
    )
    one, several = (folder / f"by_{name}.json" for name in ("one", "several"))
    alone = tiny_run.launch("evaluate", *flags, f"--out={one}", devices=devices, PYTHONPATH=path)
    tiny_run.finish(alone)
    flags += (f"--out={several}",)
    with running("evaluate", *flags, count=count, PYTHONPATH=path) as processes:
        printed = [tiny_run.finish(process)[0] for process in processes]
    return *(json.loads(file.read_text()) for file in (one, several)), printed


def together(workdir, *flags, code=0, **more):
    """Their outputs."""
    with started(workdir, *flags, **more) as processes:
        return [tiny_run.finish(process, code) for process in processes]


def averages(workdir):
    """Onto the host, whatever the mesh that wrote them: this process has one device."""
    folder, reader = workdir / "checkpoints" / "flow" / "12" / "ema", ocp.PyTreeCheckpointer()
    tree = reader.metadata(folder).item_metadata.tree
    to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return jax.tree.leaves(reader.restore(folder, restore_args=to_host))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("alone") / "one"
    line = [*tiny_run.FLAGS, "--config.mesh.fsdp=2", *FLAGS, f"--workdir={workdir}"]
    tiny_run.finish(tiny_run.launch("main", *line, devices=4))
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The same run of two processes, and what they print."""
    workdir = tmp_path_factory.mktemp("together") / "two"
    return workdir, *(out for out, _ in together(workdir, *FLAGS))


@pytest.mark.slow
def test_two_processes_train_score_and_resume_like_one(one, two, tmp_path):
    two, out, silent = two
    assert "report: " in out and "img/s" not in silent
    assert "frechet_distance_small_classifier so far" in out
    kept = [
        sorted(file.name for file in (w / "checkpoints/flow-best").iterdir()) for w in (one, two)
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 1
    for a, b in zip(averages(one), averages(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    losses = [
        {r["step"]: r["loss"] for r in read_rows(w / "metrics.jsonl") if "loss" in r}
        for w in (one, two)
    ]
    assert losses[0].keys() == losses[1].keys()
    np.testing.assert_allclose(*(list(found.values()) for found in losses), rtol=1e-5)
    (out, _), _ = together(two, *FLAGS)  # again: everything is there
    assert out.count("finished before, skipped") == 2
    results = json.loads((two / "results.json").read_text())
    assert 0 <= results["metrics"]["class_agreement"] <= 1
    samples_of_a_run_score_as_with_one(two, tmp_path)


def samples_of_a_run_score_as_with_one(run, folder):
    """Drawn, decoded and scored on the same devices, of one process and of two."""
    flags = (f"--workdir={run}", f"--reference={run}", "--num=20")
    one, two, _ = scored_by_one_and_by(2, folder, *flags, devices=4)
    # A pixel may be rounded to the next of 256 values: by JAX 0.11, one is.
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    assert two["protocol"]["samples"] == one["protocol"]["samples"]


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_processes(one, tmp_path):
    """Stopped with two, continued with four, then with one: the same weights as one alone."""
    moved = tmp_path / "moved"
    flags = [STAGES, "--config.evaluation.samples=0", *LARGE_EPS]
    for steps, count in ((4, 2), (8, 4), (12, 1)):
        outs = together(moved, *flags, f"--config.flow.steps={steps}", count=count)
        assert len(outs) == count
        assert ("flow: resuming from step" in outs[0][0]) == (steps > 4), outs[0][0]
    for a, b in zip(averages(one), averages(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0, 1])
def test_a_process_that_never_comes_is_one_sentence(missing, tmp_path):
    call, more = [
        (("preflight", "--wait=3"), {}),
        (("main", *tiny_run.FLAGS, f"--workdir={tmp_path / 'run'}"), {"SPHERE_JAX_WAIT": "3"}),
    ][missing]
    with running(*call, missing=[missing], **more) as (other,):
        _, err = tiny_run.finish(other, 75, timeout=60)
    assert err.startswith("error: The other processes did not answer within 3 s"), err
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_survivor_of_two_processes_ends_with_one_sentence(tmp_path, lost):
    flags = ["--config.stages=vae", "--config.vae.steps=9999", "--config.vae.log_every=1"]
    with started(tmp_path / "run", *flags) as processes:
        next(line for line in processes[0].stdout if line.startswith("vae 2/"))
        killed, at = processes[lost], time.monotonic()
        killed.kill()
        _, err = tiny_run.finish(processes[1 - lost], 75, timeout=60)
        assert time.monotonic() - at < 30
        tiny_run.finish(killed, -signal.SIGKILL)
    [sentence] = said(err)
    end = f"error: Process {lost} of this run has ended, so this one stops too;"
    assert sentence.startswith(end)


@pytest.mark.slow
@pytest.mark.parametrize(("log_every", "after"), [(1, "vae 2/"), (10**6, "vae: compiled in")])
def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path, log_every, after):
    """However seldom they log."""
    flags = [
        "--config.stages=vae",
        "--config.vae.steps=9999",
        f"--config.vae.log_every={log_every}",
    ]
    with started(tmp_path / "run", *flags) as processes:
        next(line for line in processes[0].stdout if line.startswith(after))
        time.sleep(1.0)  # a few steps
        processes[1].send_signal(signal.SIGTERM)
        ends = [tiny_run.finish(process, 130, timeout=60)[1] for process in processes]
    assert said(ends[0]) == said(ends[1]) and "vae: saved at step" in ends[0]


@pytest.mark.slow
def test_two_killed_processes_resume_to_the_same_bits(two, tmp_path):
    """As two that were not: weights, and the numbers of every step."""
    (whole, *_), killed = two, tmp_path / "killed"
    with started(killed, *FLAGS) as processes:  # which kills them at its end
        next(line for line in processes[0].stdout if line.startswith("flow 8/"))
    for process in processes:
        tiny_run.finish(process, -signal.SIGKILL)
    (out, _), _ = together(killed, *FLAGS)
    assert re.search(r"flow: resuming from step [36] of 12", out), out
    for a, b in zip(averages(whole), averages(killed), strict=True):
        np.testing.assert_array_equal(a, b)
    kept = [
        {r["step"]: (r["loss"], r["gradient_norm"]) for r in read_rows(w / "metrics.jsonl")
         if r["stage"] == "flow" and "loss" in r}
        for w in (whole, killed)
    ]  # fmt: skip
    assert kept[0] == kept[1] and len(kept[0]) == 12


@pytest.mark.slow
def test_four_processes_share_a_folder_and_score_like_one(tmp_path):
    """Each with one device; the images have two sizes, and one cannot be read."""
    rng, folder = np.random.default_rng(0), tmp_path / "samples"
    folder.mkdir()
    for number in range(150):
        side = 16 if number % 7 else 24
        image = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{number:03}.png")
    (folder / "bad.png").write_bytes(b"no image")
    np.savez(tmp_path / "b.npz", images=rng.integers(0, 200, (90, 16, 16, 3), np.uint8))
    flags = (f"--samples={folder}", f"--reference={tmp_path / 'b.npz'}")
    flags += ("--skip_bad", "--feature_batch=10")
    one, four, (out, *silent) = scored_by_one_and_by(4, tmp_path, *flags, devices=1)
    assert "150 samples, 90 reference images" in out and "samples" not in "".join(silent)
    for key, value in one["metrics"].items():
        assert four["metrics"][key] == pytest.approx(value, rel=1e-6)
    assert four["protocol"]["samples"] == one["protocol"]["samples"]
    assert four["remarks"] == one["remarks"]
