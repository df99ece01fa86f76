"""Whole runs on a tiny model: what they leave behind, how they survive, and other commands."""

import dataclasses
import errno
import html
import json
import os
import re
import shlex
import shutil
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_run
from PIL import Image
from refusals import refusal_of

from sphere_jax import evaluate, main, sample
from sphere_jax.common.folder_lock import only_writer
from sphere_jax.config.config_files import load_config
from sphere_jax.config.reading import to_dict
from sphere_jax.runs import sharing
from sphere_jax.runs.drawing import Drawer
from sphere_jax.runs.loading import load_run
from sphere_jax.training.run_log import read_rows, write_rows
from sphere_jax.weights.stored import fingerprint_of, write_weights

NO_SCORES = "--config.evaluation.samples=0"  # moves no weight, so it may change between starts


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    main.main([*tiny_run.FLAGS, f"--workdir={workdir}"])
    return workdir


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "tiny")


@pytest.fixture
def without_flow(copied):
    """The finished run as it was before its flow stage began."""
    for folder in ("flow", "flow.crc32"):
        shutil.rmtree(copied / "checkpoints" / folder)
    for file in copied.glob("stages/flow.*"):
        file.unlink()
    metrics = copied / "metrics.jsonl"
    write_rows(metrics, [row for row in read_rows(metrics) if row["stage"] != "flow"])
    return copied


def refusal(command, *flags) -> str:
    return refusal_of(command.main, [str(flag) for flag in flags])


def averages(workdir, stage="flow", step=12):
    folder = workdir / "checkpoints" / stage / str(step) / "ema"
    return jax.tree.leaves(ocp.StandardCheckpointer().restore(folder))


def kinds(workdir):
    """What must be in metrics.jsonl once: (stage, step, whether held out)."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]  # every line is whole
    return sorted((row["stage"], row["step"], "heldout_loss" in row) for row in rows)


# What a run leaves behind


def test_the_folder_of_a_run(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["config"]["flow"]["steps"] == 12 and config["versions"]["jax"] == jax.__version__
    steps = [step for stage, step, heldout in kinds(finished) if stage == "flow" and not heldout]
    assert steps == list(range(1, 13))
    names = {file.name for file in (finished / "samples").iterdir()} - {"first.npz"}
    assert names == {
        "vae_000006.png", "decoder_000004.png", "flow_000006.png", "flow_000012.png", "final.png"
    }  # fmt: skip
    assert len(np.load(finished / "samples" / "first.npz")["images"]) > 0
    for name in names:
        assert np.asarray(Image.open(finished / "samples" / name)).std() > 0


def test_results_and_report(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["nfe"] == 8 and results["seed"] == 0  # 4 guided Euler steps
    assert results["metrics"].keys() == results["real_data"].keys()
    assert 0 <= results["metrics"]["class_agreement"] <= 1
    assert results["stages"]["vae"]["reconstruction_psnr"] > 0
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "src=http" not in page.replace('"', "") and "<script src" not in page
    assert "class agreement" in page.lower()
    headlines = page[page.index('class="headlines"') :]
    assert headlines.index("Fréchet distance") < headlines.index("Precision (generated")


def test_the_command_of_a_report_repeats_the_run(finished, capsys):
    page = (finished / "report.html").read_text()
    command = shlex.split(html.unescape(re.search("<pre><code>(python .*)</code>", page).group(1)))
    assert command[:3] == ["python", "-m", "sphere_jax.main"]
    main.main([*command[3:], "--dry_run"])
    assert "flow" in capsys.readouterr().out
    file = str(finished / "config.json")
    stored = json.loads((finished / "config.json").read_text())["config"]
    assert json.loads(json.dumps(to_dict(load_config(file)))) == stored
    assert load_config(file, ["--config.flow.steps=7"]).stage("flow").steps == 7


def test_a_json_that_is_no_config_of_a_run(finished):
    words = "results.json is not the config.json of a run"
    assert words in refusal_of(load_config, str(finished / "results.json"))


def test_pictures_along_the_sampling_path(finished):
    """From noise to the very samples of the run."""
    drawer = Drawer(load_run(finished), 0)
    labels = np.arange(3)
    for steps, most, shown in ((4, 3, [0, 2, 4]), (4, 9, [0, 1, 2, 3, 4])):
        sampler = dataclasses.replace(drawer.method.sampler, steps=steps)
        path = drawer.path(labels, most, sampler)
        assert list(path) == shown
        assert {images.shape for images in path.values()} == {(3, 16, 16, 1)}
    drawn = drawer.draw(labels).images.astype(int)
    far, near = (np.abs(path[step] - drawn) for step in (0, 4))
    assert near.max() <= 1 and near.sum() < far.sum() / 2  # the tiny flow moves little


def test_tensorboard_reads_the_curves(finished):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    board = {event.step: event.value for event in events.Scalars("flow/loss")}
    rows = [r for r in read_rows(finished / "metrics.jsonl") if r["stage"] == "flow"]
    logged = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert board == pytest.approx(logged) and len(board) == 12
    rates = {event.step: event.value for event in events.Scalars("flow/learning_rate")}
    assert rates.keys() == board.keys() and min(rates.values()) > 0
    (distance,) = events.Scalars("final_scores/frechet_distance_small_classifier")
    results = json.loads((finished / "results.json").read_text())
    assert distance.value == pytest.approx(
        results["metrics"]["frechet_distance_small_classifier"], rel=1e-6
    )
    (config,) = events.Tensors("config/text_summary")
    assert '"stages"' in config.tensor_proto.string_val[0].decode()
    assert [event.step for event in events.Images("flow/preview")] == [6, 12]


def test_the_decoder_stage_leaves_the_encoder_alone(finished):
    parts = ocp.StandardCheckpointer().restore(finished / "checkpoints" / "decoder" / "4" / "ema")
    assert list(parts) == ["decoder"]
    before = ocp.StandardCheckpointer().restore(finished / "checkpoints" / "vae" / "6" / "ema")
    changed = jax.tree.map(lambda a, b: np.any(a != b), before["decoder"], parts["decoder"])
    assert all(jax.tree.leaves(changed))


# How it survives


def test_running_again_trains_nothing(copied, finished, capsys):
    main.main([*tiny_run.FLAGS, NO_SCORES, f"--workdir={copied}"])
    assert capsys.readouterr().out.count("finished before, skipped") == 3
    assert kinds(copied) == kinds(finished)


def read_until(process, words):
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"'{words}' never came\n{process.stderr.read()}")


def test_stopped_then_killed_then_finished_is_the_same_run(without_flow, finished):
    flags = [*tiny_run.FLAGS, NO_SCORES, f"--workdir={without_flow}"]
    process = tiny_run.launch("main", *flags)
    read_until(process, "flow 4/12")
    process.send_signal(signal.SIGTERM)
    _, output = tiny_run.finish(process, 130)
    assert "flow: saved at step" in output and "The same command resumes" in output

    process = tiny_run.launch("main", *flags)
    read_until(process, "flow 10/12")
    process.kill()
    tiny_run.finish(process, -signal.SIGKILL)

    main.main(flags)
    for a, b in zip(averages(without_flow), averages(finished), strict=True):
        np.testing.assert_array_equal(a, b)
    assert kinds(without_flow) == kinds(finished)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--config.vae.steps=7", "config.vae.steps=6, not 7, and cannot go on, because later"),
        ("--config.flow.steps=11", "config.flow.steps=12, not 11"),
        ("--config.seed=1", "config.seed=0, not 1"),
        ("--config.space.path=linear", "sphere of radius sqrt(d)', not 'none'"),
        ("--config.vae.kl_weight=0.5", "config.vae.kl_weight"),
    ],
)
def test_another_config_is_refused_and_the_folder_left_as_it_was(copied, change, words):
    before = (copied / "config.json").read_text()
    output = refusal(main, *tiny_run.FLAGS, change, f"--workdir={copied}")
    assert "holds stage" in output and words in output and "another --workdir" in output
    assert (copied / "config.json").read_text() == before


def test_options_without_effect_on_weights_may_change(copied):
    free = [
        "--config.flow.log_every=5",
        "--config.sampler.steps=2",
        "--config.flow.skip_nonfinite=1",
    ]
    main.main([*tiny_run.FLAGS, NO_SCORES, *free, f"--workdir={copied}"])
    assert json.loads((copied / "config.json").read_text())["config"]["sampler"]["steps"] == 2


def flip_a_byte(folder):
    file = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_trained_again(copied, finished, tmp_path, capsys):
    """It is never sampled; the advice of the refusal ends in the same weights."""
    flip_a_byte(copied / "checkpoints" / "flow" / "12" / "ema")
    drawn = refusal(sample, f"--workdir={copied}", f"--out={tmp_path / 'a.png'}", "--num=2")
    assert "flow/12 is damaged" in drawn and "run sphere_jax.main on this run again" in drawn
    again = [*tiny_run.FLAGS, NO_SCORES, f"--workdir={copied}"]
    main.main(again)
    out = capsys.readouterr().out
    assert "flow/12 is damaged: ema/" in out and "its last steps are trained again" in out
    assert "flow-damaged/12, and the one before is used" in out and "resuming from step 9" in out
    for a, b in zip(averages(copied), averages(finished), strict=True):
        np.testing.assert_array_equal(a, b)
    assert kinds(copied) == kinds(finished)
    shutil.rmtree(copied / "checkpoints" / "flow" / "12")
    drawn = refusal(sample, f"--workdir={copied}", f"--out={tmp_path / 'a.png'}", "--num=2")
    assert "is finished but lacks its last checkpoint; run sphere_jax.main" in drawn


def test_the_advice_for_damaged_records_works(copied, finished, capsys):
    again = [*tiny_run.FLAGS, NO_SCORES, f"--workdir={copied}"]
    record = copied / "stages" / "vae.json"
    (copied / "stages" / "vae.npz").write_bytes(b"PK")
    assert "vae.npz cannot be read" in refusal(main, *again)
    content = json.loads(record.read_text())
    for damaged in (
        b'{"depends"', b"[]", b"null", b"\xff", b'{"finished": true}',
        json.dumps({key: v for key, v in content.items() if key != "metrics"}).encode(),
        json.dumps(content | {"finished": "yes"}).encode(),
    ):  # fmt: skip
        record.write_bytes(damaged)
        message = refusal(main, *again)
        assert "vae.json is damaged" in message and "delete it and run sphere_jax.main" in message
    record.unlink()
    with (copied / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage": "\xff\n[]\n{"stage": "flow", "step": "x"}\n3')
    main.main(again)  # measures again: its checkpoints are whole
    out = capsys.readouterr().out
    assert out.count("finished before, skipped") == 2 and "3 damaged of" in out
    assert kinds(copied) == kinds(finished)
    assert json.loads(record.read_text())["metrics"] == content["metrics"]


def test_two_runs_in_one_folder(finished, tmp_path):
    """The second is refused; readers are not."""
    with only_writer(finished):
        output = refusal(main, *tiny_run.FLAGS, f"--workdir={finished}")
        assert f"in use by another run, process {os.getpid()}" in output
        sample.main([f"--workdir={finished}", f"--out={tmp_path / 'a.png'}", "--num=2"])


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    output = refusal(main, *tiny_run.FLAGS, f"--workdir={tmp_path / 'file' / 'run'}")
    assert "Cannot write to" in output
    assert "--workdir is missing" in refusal(main, *tiny_run.FLAGS)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--config.flow.batch_size=2000",), "is more than the 1442 training examples"),
        (("--config.decoder.lpips=none.safetensors",), "none.safetensors is not there"),
        (
            ("--config.evaluation.lpips=n.pth", "--config.data.image_size=32"),
            "n.pth is not there",
        ),
        (
            ("--config.sampler.auto_guidance=none",),
            "auto_guidance=none is not the folder of a finished run",
        ),
        (("--config.evaluation.neighbours=400",), "355 held-out images are too few"),
    ],
)
def test_errors_of_a_later_stage_are_raised_before_the_first_one_trains(tmp_path, flags, words):
    more = ["--config.evaluation.samples=500", f"--workdir={tmp_path / 'run'}"]
    assert words in refusal(main, *tiny_run.FLAGS, *more, *flags)
    assert not (tmp_path / "run" / "config.json").exists()


# Sampling


def draw(finished, out, *flags):
    sample.main([f"--workdir={finished}", f"--out={out}", *flags])
    return dict(np.load(out)) if out.suffix == ".npz" else Image.open(out)


def test_samples_do_not_depend_on_the_batch_size(finished, tmp_path):
    flags = ("--num=20", "--seed=3")
    whole = draw(finished, tmp_path / "a.npz", *flags)
    parts = draw(finished, tmp_path / "b.npz", *flags, "--batch=7")
    assert whole["images"].shape == (20, 16, 16, 1) and whole["images"].dtype == np.uint8
    assert whole["labels"].tolist() == [*range(10)] * 2 and whole["labels"].dtype == np.int32
    assert np.abs(whole["images"].astype(int) - parts["images"]).max() <= 1
    first = draw(finished, tmp_path / "c.npz", "--num=5", "--seed=3")["images"]
    assert np.abs(whole["images"][:5].astype(int) - first).max() <= 1
    other = draw(finished, tmp_path / "d.npz", "--num=20", "--seed=4")["images"]
    assert np.abs(whole["images"].astype(int) - other).max() > 1


def test_a_grid_of_given_classes(finished, tmp_path, capsys):
    flags = ("--num=6", "--labels=3,5", "--steps=3", "--solver=heun", "--guidance=1")
    assert draw(finished, tmp_path / "deep" / "a.png", *flags).size == (3 * 18 - 2, 2 * 18 - 2)
    assert (
        "6 samples, seed 0, labels 3, 5 in turn, heun 3 steps, guidance 1, NFE"
        in capsys.readouterr().out
    )
    names = finished / "classes.json"
    stored = names.read_text()
    assert [json.loads(stored)[str(label)] for label in range(10)] == list("0123456789")
    names.write_text(json.dumps(["zero", "one", "two", "three", "four", "five"]))
    try:
        by_name = ("--num=6", "--labels=Three,5", *flags[2:])
        labels = draw(finished, tmp_path / "a.npz", *by_name)["labels"]
    finally:
        names.write_text(stored)
    assert labels.tolist() == [3, 5, 3, 5, 3, 5] and labels.dtype == np.int32
    assert "labels 3 = three, 5 = five" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--num=0",), "at least 1"),
        (("--num=-3", "--labels=1"), "at least 1"),
        (("--num=9999999999999999", "--out=new.npz"), "The samples would take"),
        (("--num=2501",), "more than a .png shows (2,500); use --out=FILE.npz"),
        (("--labels=11",), "must be 0..9, or 10 for no class"),
        (("--labels=-1",), "must be 0..9, or 10"),
        (("--labels=99999999999999999999999",), "must be 0..9, or 10"),
        (("--labels=three",), "must be numbers"),
        (("--seed=-1",), "--seed must be a whole number, 0 to 4294967295, not '-1'"),
        (("--steps=0",), "config.sampler.steps=0 must be at least 1"),
        (("--guidance=nan",), "must be a finite number"),
        (("--out=a.jpg",), "must end in .png or .npz"),
        (("--out=FILE/a.png",), "Cannot write to"),
        (("--workdir=FILE",), "is not a run folder"),
    ],
)
def test_sample_refusals(finished, tmp_path, flags, words):
    (tmp_path / "file").write_text("")
    flags = [flag.replace("FILE", str(tmp_path / "file")) for flag in flags]
    output = refusal(sample, f"--workdir={finished}", f"--out={tmp_path / 'a.png'}", *flags)
    assert words in output


def test_guided_by_itself_is_not_guided(finished, tmp_path, capsys):
    plain = draw(finished, tmp_path / "a.npz", "--num=5", "--guidance=1")["images"]
    itself = (f"--auto_guidance={finished}", "--guidance=3")
    own = draw(finished, tmp_path / "b.npz", "--num=5", *itself)["images"]
    assert np.abs(own.astype(int) - plain).max() <= 1
    assert "auto-guidance 3, NFE 8" in capsys.readouterr().out


def test_weights_used_instead_of_the_runs_own(finished, tmp_path):
    """Its own average as a file gives the same samples; other weights do not."""
    network = ocp.StandardCheckpointer().restore(finished / "checkpoints/flow/12/ema")["network"]
    paths = jax.tree_util.tree_leaves_with_path(network)
    own = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
    drawn = [draw(finished, tmp_path / "a.npz", "--num=5")["images"].astype(int)]
    for weights in (own, {name: leaf + 1.0 for name, leaf in own.items()}):
        write_weights(tmp_path / "w.safetensors", weights, "stage flow", "a test")
        flag = f"--weights={tmp_path / 'w.safetensors'}"
        drawn.append(draw(finished, tmp_path / "a.npz", "--num=5", flag)["images"])
    assert np.abs(drawn[1] - drawn[0]).max() <= 1 < np.abs(drawn[2] - drawn[0]).max()
    out = tmp_path / "a.json"
    evaluate.main([f"--workdir={finished}", "--num=20", flag, f"--out={out}"])
    stamp = json.loads(out.read_text())["protocol"]["generation"]
    assert stamp["weights"] == fingerprint_of(tmp_path / "w.safetensors")
    write_weights(tmp_path / "w.safetensors", {"a": np.zeros(3)}, "stage flow", "a test")
    assert "config.model" in refusal(sample, f"--workdir={finished}", "--out=a.png", flag)


def test_both_weights_are_scored_and_the_best_are_used_by_name(without_flow, tmp_path):
    scores = {"every": 4, "curve_samples": 20, "curve_weights": "both", "keep_best": "recall"}
    options = [f"--config.evaluation.{name}={value}" for name, value in scores.items()]
    main.main([*tiny_run.FLAGS, NO_SCORES, *options, f"--workdir={without_flow}"])
    assert not (without_flow / "partial").exists()
    rows = [r for r in read_rows(without_flow / "metrics.jsonl") if "images_trained" in r]
    key = "frechet_distance_small_classifier"
    assert len(rows) == 3 and all(row[key] != row[f"{key}_raw"] for row in rows)
    best = max(rows, key=lambda row: row["recall_small_classifier"])["step"]

    used, kept = (network_of(without_flow, name)[0] for name in ("ema", "best"))
    assert np.array_equal(used, kept) == (best == 12)
    out = tmp_path / "scores.json"
    flags = [f"--workdir={without_flow}", "--num=12", f"--out={out}", "--weights=best"]
    evaluate.main([*flags, "--labels=3,5"])
    made = json.loads(out.read_text())["protocol"]["generation"]
    assert made["weights"] == f"best, of step {best}" and made["labels"] == "3, 5 in turn"


def network_of(workdir, weights):
    run = load_run(workdir, weights=weights)
    leaves = jax.tree.leaves(run.artifacts["network"])
    return np.concatenate([np.ravel(leaf) for leaf in leaves]), run.override


def test_averaged_raw_and_best_weights_are_used_by_name(copied):
    checkpoints = copied / "checkpoints"
    for end in ("", ".crc32"):  # as `keep_best` would have kept them
        shutil.copytree(checkpoints / f"flow{end}", checkpoints / f"flow-best{end}")
    found = {name: network_of(copied, name) for name in ("", "raw", "best")}
    assert [override for _, override in found.values()] == ["", "raw", "best, of step 12"]
    np.testing.assert_array_equal(found["best"][0], found[""][0])
    assert (found["raw"][0] != found[""][0]).any()


def test_best_weights_that_were_not_kept_are_refused(finished, tmp_path):
    flags = [f"--workdir={finished}", f"--out={tmp_path / 'a.png'}", "--weights=best"]
    words = refusal(sample, *flags)
    assert "has kept no best weights of stage 'flow'; train with config.evaluation.every" in words


def test_samples_in_the_layout_of_adm(finished, tmp_path):
    flags = [f"--workdir={finished}", "--num=3", "--layout=adm", "--labels=2"]
    sample.main([*flags, f"--out={tmp_path / 'a.npz'}"])
    with np.load(tmp_path / "a.npz") as stored:
        assert set(stored) == {"arr_0", "arr_1"}
        assert stored["arr_0"].shape == (3, 16, 16, 3) and stored["arr_0"].dtype == np.uint8
        assert stored["arr_1"].tolist() == [2, 2, 2] and stored["arr_1"].dtype == np.int64
    assert "--layout=adm is of arrays" in refusal(sample, *flags, f"--out={tmp_path / 'a.png'}")


def test_an_unfinished_run_is_not_sampled(without_flow, tmp_path):
    output = refusal(sample, f"--workdir={without_flow}", f"--out={tmp_path / 'a.png'}")
    assert "has no finished stage 'flow'" in output


def test_a_damaged_config_is_refused(copied, tmp_path):
    for content in ("{", "[]", "{}", '{"config": 3}', '{"config": {"stages": ["flow"]}}'):
        (copied / "config.json").write_text(content)
        assert refusal(sample, f"--workdir={copied}", f"--out={tmp_path / 'a.png'}")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.heads", 4, "config.model.heads=2, not 4"),
        ("space.radius", 3.0, "config.space.radius=0.0, not 3.0"),
        ("space.sphere", "global", "config.space.sphere='token', not 'global'"),
        ("space.path", "nlerp", "config.space.path='slerp', not 'nlerp'"),
        ("flow.weights", "raw", "config.flow.weights='ema', not 'raw'"),
        ("decoder.weights", "raw", "config.decoder.weights='ema', not 'raw'"),
        ("stages", ["vae", "flow"], "holds stage 'decoder', which this config does not have"),
        ("sampler.steps", 2, ""),  # samples may be drawn by other settings
    ],
)
def test_an_edited_config_is_refused(finished, key, value, words):
    """As training refuses it: by every command that reads the run."""
    config = json.loads((finished / "config.json").read_text())
    group = config["config"]
    *groups, last = key.split(".")
    for name in groups:
        group = group[name]
    group[last] = value
    stored = (finished / "config.json").read_text()
    try:
        (finished / "config.json").write_text(json.dumps(config))
        if words:
            assert words in refusal_of(load_run, finished)
        else:
            load_run(finished)
    finally:
        (finished / "config.json").write_text(stored)


# Scoring


def test_evaluating_a_run_repeats_its_own_scores(finished, tmp_path, capsys):
    out = tmp_path / "scores.json"
    evaluate.main([f"--workdir={finished}", "--num=40", f"--out={out}"])
    scores = json.loads(out.read_text())
    results = json.loads((finished / "results.json").read_text())
    assert scores["metrics"] == pytest.approx(results["metrics"])
    assert scores["protocol"] == results["protocol"]
    printed = capsys.readouterr().out
    assert printed.count("real data") == len(results["metrics"])
    first, distance, *_ = printed[printed.index("40 samples of") :].splitlines()
    assert "seed 0, euler 4 steps, guidance 1.75, NFE 8; against 355 held-out images" in first
    assert distance.startswith("Fréchet distance")
    assert printed.count("better: higher; weak features (held-out accuracy") == 2
    assert printed.count("few images (40)") == 2


def test_a_folder_that_cannot_be_written_is_scored(copied, monkeypatch, capsys):
    shutil.rmtree(copied / "evaluator")
    (copied / "evaluator").touch()  # in the place of the folder, for root may write anywhere
    monkeypatch.setattr("sphere_jax.runs.run.make_folder", lambda folder: 1 / 0)
    evaluate.main([f"--workdir={copied}", "--num=40"])
    printed = capsys.readouterr().out
    assert f"Nothing is stored in {copied}, and scores are the same: Cannot write" in printed
    results = json.loads((copied / "results.json").read_text())
    assert f"{results['metrics']['frechet_distance_small_classifier']:9.4f}" in printed


def test_a_sweep_leaves_a_table_and_curves(finished, tmp_path, capsys):
    out = tmp_path / "radius.json"
    flags = ("--num=40", "--sweep=decode_radius=0,1", f"--out={out}")
    evaluate.main([f"--workdir={finished}", *flags])
    assert "| decode_radius | NFE |" in capsys.readouterr().out
    own, other = json.loads(out.read_text())["rows"]
    results = json.loads((finished / "results.json").read_text())
    assert own["metrics"] == pytest.approx(results["metrics"], rel=0.01, abs=0.03)
    assert own["values"] == {"decode_radius": "0"} and own["nfe"] == results["nfe"]
    assert own["metrics"] != other["metrics"]
    assert np.asarray(Image.open(out.with_suffix(".png"))).std() > 0


@pytest.mark.parametrize("size", [16, 8])  # as drawn, by one program; and resized
def test_samples_are_scored_as_they_are_drawn(finished, tmp_path, size):
    mine, out, weights = (tmp_path / name for name in ("mine.npz", "out.json", "weights.bin"))
    weights.write_text("0" * 16)
    common = [
        f"--reference={finished}",
        "--metrics=frechet_distance:network=other_lab.colours",
        f"--pretrained={weights}",
        f"--size={size}",
        f"--out={out}",
    ]
    evaluate.main([f"--workdir={finished}", "--num=40", *common])
    drawn = json.loads(out.read_text())
    assert drawn["protocol"]["samples"]["generation"]["steps"] == 4
    assert drawn["protocol"]["samples"]["classes"] == {"classes": 10, "fewest": 4, "most": 4}
    assert drawn["protocol"]["reference"]["images"] == 1442  # its training images
    sample.main([f"--workdir={finished}", f"--out={mine}", "--num=40"])
    evaluate.main([f"--samples={mine}", *common])
    stored = json.loads(out.read_text())
    assert stored["metrics"] == pytest.approx(drawn["metrics"], rel=1e-6)
    one, other = (found["protocol"]["samples"] for found in (drawn, stored))
    assert one["fingerprint"] == other["fingerprint"] and one["resized"] == other["resized"]


def test_evaluating_files(finished, tmp_path, capsys):
    mine, data = tmp_path / "mine.npz", tmp_path / "data.npz"
    sample.main([f"--workdir={finished}", f"--out={mine}", "--num=40"])
    evaluate.main([f"--workdir={finished}", f"--samples={mine}", f"--out={tmp_path / 'a.json'}"])
    scores = json.loads((tmp_path / "a.json").read_text())
    results = json.loads((finished / "results.json").read_text())
    assert scores["metrics"] == pytest.approx(results["metrics"])

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 100, (60, 16, 16, 1)).astype(np.uint8)
    images[labels == 1, :8] += 100
    np.savez(data, images=images, labels=labels)
    np.savez(mine, images=images[:20, ..., 0], labels=labels[:20])
    evaluate.main([f"--samples={mine}", f"--reference={data}", f"--out={tmp_path / 'b.json'}"])
    scores = json.loads((tmp_path / "b.json").read_text())
    assert scores["metrics"]["class_agreement"] == 1.0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "Give --workdir of a run, or --samples with --reference."),
        (("--workdir=RUN", "--reference=MINE"), "Give --workdir of a run"),
        (("--reference=MINE",), "--reference needs --samples"),
        (("--workdir=RUN", "--samples=none.npz"), "There is no file"),
        (("--samples=MINE", "--reference=MINE"), "lacks the array 'labels'"),
        (("--workdir=RUN", "--samples=MINE"), "are 8x8 and those of the reference 16x16"),
        (("--workdir=RUN", "--num=2"), "cannot be scored"),
        (("--workdir=RUN", "--samples=MINE", "--sweep=guidance=1"), "--sweep draws samples"),
        (("--workdir=RUN", "--samples=MINE", "--weights=w"), "--weights draws samples"),
        (("--workdir=RUN", "--samples=MINE", "--num=9"), "--num draws samples"),
        (("--workdir=RUN", "--samples=MINE", "--steps=9"), "--steps draws samples"),
        (("--samples=MINE", "--reference=MINE", "--data_path=x"), "--reference has its images"),
        (("--samples=MINE", "--reference=MINE", "--pretrained=x"), "published --features"),
        (("--workdir=RUN", "--samples=RUN/report.html"), "is not a readable .npz of plain"),
        (("--workdir=RUN", "--weights=w.safetensors"), "w.safetensors is not there"),
        (("--workdir=RUN", "--sweep=guidance=1", "--out=a.txt"), "must end in .json"),
        (("--workdir=RUN", "--out=RUN"), "must end in .json"),
        (("--workdir=RUN", "--sweep=steps=0"), "config.sampler.steps=0 must be at least 1"),
    ],
)
def test_evaluate_refusals(finished, tmp_path, flags, words):
    np.savez(tmp_path / "mine.npz", images=np.zeros((30, 8, 8, 1), np.uint8))
    places = {"RUN": str(finished), "MINE": str(tmp_path / "mine.npz")}
    for name, place in places.items():
        flags = [flag.replace(name, place) for flag in flags]
    assert words in refusal(evaluate, *flags)


# Sharing


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_finished_stages_of_another_run_are_taken(finished, tmp_path, capsys, monkeypatch):
    """Those that this config would train to the same weights."""
    workdir = tmp_path / "run"
    taken = (f"--workdir={workdir}", f"--from_run={finished}", NO_SCORES)
    message = refusal(main, *tiny_run.FLAGS, "--config.seed=1", *taken)
    assert "has nothing to take: its stage 'vae' was trained with config.seed=0, not 1" in message
    message = refusal(main, *tiny_run.FLAGS, *taken[::2], f"--from_run={tmp_path}")
    assert "is not a run folder" in message
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", _full)
        message = refusal(main, *tiny_run.FLAGS, *taken)
    assert f"Cannot copy stage 'vae' of {finished} to {workdir} (" in message
    assert "No space left on device" in message and "the same command tries again" in message
    shutil.rmtree(workdir)
    with monkeypatch.context() as patch:  # another process, which sees what the first has copied
        patch.setattr(sharing, "told_by_main_process", lambda own: [])
        sharing.take_stages(tiny_run.unstarted(workdir, *tiny_run.FLAGS), finished)
    assert not (workdir / "stages").exists()
    flags = [*tiny_run.FLAGS, *taken, "--config.flow.steps=13"]
    main.main(flags)
    out = capsys.readouterr().out
    assert f"vae: taken from {finished}" in out and f"decoder: taken from {finished}" in out
    assert f"flow: taken from {finished}, to go on in more steps" in out  # all in the warm-up
    assert "flow: resuming from step 12 of 13" in out
    for a, b in zip(averages(workdir, "vae", 6), averages(finished, "vae", 6), strict=True):
        np.testing.assert_array_equal(a, b)
    assert out.count("finished before, skipped") == 2 and "flow 13/13" in out
    main.main(flags)  # again: everything is there
    assert capsys.readouterr().out.count("finished before, skipped") == 3


def test_one_stage_changed_trains_all_that_follow(finished, tmp_path):
    """What a later stage learnt depends on the earlier ones, so it is not shared."""
    from sphere_jax.config.config_files import load_config
    from sphere_jax.runs.run import Run

    path, *overrides = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]

    def depends(name, *more):
        return Run(load_config(path, [*overrides, *more]), tmp_path, None).records.depends(name)

    for name in ("decoder", "flow"):
        assert depends(name, "--config.vae.kl_weight=0.5") != depends(name)
        assert depends(name, "--config.sampler.guidance=1.0") == depends(name)
    assert depends("vae", "--config.decoder.steps=9") == depends("vae")
    assert depends("decoder", "--config.space.path=nlerp") == depends("decoder")
    assert depends("decoder", "--config.space.path=linear") != depends("decoder")
    assert depends("flow", "--config.space.path=nlerp") != depends("flow")
