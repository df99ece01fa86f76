"""Every file of a run folder: with a bit flipped, cut off, and deleted. Nothing damaged is used in
silence: what is read is checked, and the rest is never read."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from drilled import FLAGS, damage, files_of, outcome, raised

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import SEAL
from sphere_jax.data.class_names import read_classes
from sphere_jax.evaluation.features.small_classifier import FEATURES
from sphere_jax.runs.finished import load_stage, stored_arrays
from sphere_jax.runs.loading import unloaded_run
from sphere_jax.runs.reporting import FIRST_SAMPLES
from sphere_jax.studies.comparing.outcomes import read_outcome
from sphere_jax.studies.comparing.running import finished_results
from sphere_jax.training.checkpoints import ITEMS, Checkpoints
from sphere_jax.training.run_log import RunLog, read_rows, say_lost

HOWS = ("flipped", "cut", "deleted")
READ = ("checkpoints/*", "stages/*", "config.json", "results.json", "classes.json", "metrics.jsonl",
        "evaluator/classifier.safetensors", f"samples/{FIRST_SAMPLES}")  # fmt: skip
OUTPUTS = ("samples/*.png", "report.html", "tensorboard/*", ".lock")  # never read


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


@pytest.mark.slow  # 30 s
def test_every_file_of_a_checkpoint(copied, capsys):
    """It is named and set aside, and the checkpoint before is used; sampling refuses it."""
    folder = copied / "checkpoints" / "flow"
    sums = folder.with_name("flow.crc32") / "8.json"
    aside = folder.with_name("flow-damaged")
    noted = sums.read_bytes()
    for file in [*files_of(folder / "8"), sums]:
        whole = file.read_bytes()
        for how in HOWS:
            said = damage(file, how)
            with Checkpoints(folder) as checkpoints:
                assert checkpoints.newest_whole() == 6, said
            out = capsys.readouterr().out
            if sums.name in said and how == "deleted":  # as killed before it was written
                assert (folder / "8").is_dir() and not out
            else:
                named = file.name if file != sums else "8"
                assert named in out and "flow-damaged/8, and the one before is used" in out, said
                (aside / "8").rename(folder / "8")
            file.write_bytes(whole)
            sums.write_bytes(noted)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.newest_whole() == 8
    sums.write_text(sums.read_text().replace('"data/', '"eata/'))  # a file that is not asked for
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.newest_whole() == 6


def read_records(workdir: Path) -> None:
    """What commands read of a run folder besides checkpoints; nothing is trained."""
    run = unloaded_run(workdir)
    for name in run.config.stages:
        record = run.records.read(name)
        if record is None:
            raise UserError(f"{run.records.file(name)} is not there")
        run.records.check_trained(name, record)
        stored_arrays(workdir / "stages" / f"{name}.npz")
    if finished_results(run.config, workdir) is None:
        raise UserError(f"{workdir / 'results.json'} is not there")


@pytest.mark.slow  # 20 s
def test_every_record_of_a_run(copied):
    """A flip that is not noticed has changed nothing that is read, or in `config.json` a value that
    may be edited, as those of the sampler."""
    read_records(copied)
    names = [
        "results.json",
        *(f"stages/{n}.{kind}" for n in ("vae", "flow") for kind in ("json", "npz")),
    ]
    before = {name: stored_arrays(copied / name)[0] for name in names if name.endswith("npz")}
    for name in [*names, "config.json"]:
        file = copied / name
        whole = file.read_bytes()
        for how in (*["flipped"] * 20, "cut", "cut", "deleted"):
            said = damage(file, how)
            words = raised(read_records, copied)
            if words:
                assert name in words or "config" in words, f"{said}: {words}"
            elif name.endswith("npz"):
                assert how == "flipped", said
                for key, array in stored_arrays(file)[0].items():
                    np.testing.assert_array_equal(array, before[name][key], said)
            else:
                assert how == "flipped" and (name == "config.json" or same_json(file, whole)), said
            file.write_bytes(whole)


def same_json(file: Path, before: bytes) -> bool:
    """Whether a file that was flipped is read as what it was: without its seal, say."""

    def values(content: bytes) -> dict:
        return {k: v for k, v in json.loads(content).items() if len(k) != len(SEAL)}

    return values(file.read_bytes()) == values(before)


@pytest.mark.slow  # 5 s
@pytest.mark.parametrize("name", ["vae", "flow-best"])
def test_every_file_of_the_only_checkpoint(copied, name, capsys):
    """As that of a finished stage, and that of the best weights, are: there is none before."""
    folder = copied / "checkpoints" / name
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.latest()
        sums = folder.with_name(f"{name}.crc32") / f"{step}.json"
        for file in [*files_of(folder / str(step)), sums]:
            whole = file.read_bytes()
            for how in HOWS:
                said = damage(file, how)
                found = checkpoints._damage(step, (*ITEMS, "data"))
                assert (file.name if file != sums else "checksums") in found, said
                file.write_bytes(whole)
        assert checkpoints._damage(step, (*ITEMS, "data")) == ""
    large(folder / str(step) / "ema").unlink()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.newest_whole() is None
    assert f"{name}-damaged/{step}, and there is none before it" in capsys.readouterr().out


def large(folder: Path) -> Path:
    """The largest file there."""
    return max(files_of(folder), key=lambda file: file.stat().st_size)


@pytest.mark.slow  # 3 s
def test_best_weights_are_refused_by_their_name(copied):
    """By commands that read a run, which `main` cannot help: it trains nothing again."""
    run = unloaded_run(copied)
    load_stage(run, "vae", run.records.read("vae"))
    arguments = run, "flow", run.records.read("flow"), "best"
    assert raised(load_stage, *arguments) == ""
    best = copied / "checkpoints" / "flow-best"
    said = damage(file := large(best), "flipped")
    words = raised(load_stage, *arguments)
    assert file.name in words and "leave out --weights=best" in words, f"{said}: {words}"
    shutil.rmtree(best.with_name("flow-best.crc32"))
    assert "lacks its kept weights; restore it" in raised(load_stage, *arguments)


@pytest.mark.slow  # 3 s
def test_the_log_of_metrics(copied, capsys):
    """Rows are those that were written, and a line says when some are lost."""
    file, steps = copied / "metrics.jsonl", {"vae": 2, "flow": 8}
    whole, rows = file.read_bytes(), read_rows(file)
    log = RunLog(copied)
    for how in (*["flipped"] * 300, *["cut"] * 50, "deleted"):
        said = damage(file, how)
        found = read_rows(file)
        for stage, step in steps.items():
            say_lost(file, found, stage, step)
        out = capsys.readouterr().out
        assert all(row in rows for row in found), said
        assert found == rows or str(file) in out, f"{said}: {out}"
        if found != rows and how != "deleted":
            log.drop_rows_after("flow", 8, sum(row["stage"] == "flow" for row in rows))
            lost = all(row in found for row in rows if row["stage"] == "flow")
            assert ("rows of flow: its curves" in capsys.readouterr().out) != lost, said
        file.write_bytes(whole)
    log.close()
    lines = [json.loads(line) for line in whole.splitlines()]  # as other programs read it
    assert [{k: v for k, v in line.items() if k != "crc32"} for line in lines] == rows
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))  # of an older version
    assert read_rows(file) == rows


@pytest.mark.slow  # 5 s
def test_names_pictures_and_the_feature_network(copied, capsys):
    """The same is read, or the file is named."""
    config, results = unloaded_run(copied).config, json.loads((copied / "results.json").read_text())

    def classifier():
        found = FEATURES.load(evaluator)
        return found.fingerprint, found.steps, found.num_classes, found.image_shape, found.accuracy

    evaluator = copied / "evaluator" / "classifier.safetensors"
    reading = {
        copied / "classes.json": lambda: read_classes(copied, 10),
        evaluator: classifier,
        copied / "samples" / FIRST_SAMPLES: lambda: read_outcome(
            copied, results, config
        ).samples.tobytes(),
    }
    for file, read in reading.items():
        whole, before = file.read_bytes(), read()
        for how in (*["flipped"] * 25, *["cut"] * 4):
            said = damage(file, how)
            try:
                assert read() == before and how == "flipped", f"{said}: other content is read"
            except UserError as error:
                assert file.name in str(error), f"{said}: {error}"
            file.write_bytes(whole)
    capsys.readouterr()
    for file in reading:
        file.unlink()
    assert read_classes(copied, 10) is None  # classes have numbers then
    assert read_outcome(copied, results, config).samples is None
    assert f"{FIRST_SAMPLES} is not there" in capsys.readouterr().out


@pytest.mark.slow  # 10 s
def test_damage_everywhere_at_once(nursery, whole, copied, tmp_path):
    """`main` names what it needs, and trains and writes it again to the same bits; it reads none of
    what is only written."""
    files = [path.relative_to(copied) for path in files_of(copied)]
    for file in files:
        assert any(fnmatch(file, pattern) for pattern in (*READ, *OUTPUTS)), f"{file} is not known"
    checkpoints = [
        large(folder / "ema") for folder in (copied / "checkpoints").glob("[!.]*/[0-9]*")
        if folder.parent.name == "vae" or folder.name == "8"
    ]  # fmt: skip
    outputs = [copied / f for f in files if any(fnmatch(f, pattern) for pattern in OUTPUTS)]
    for number, file in enumerate(checkpoints):
        damage(file, HOWS[number % 3])
    for number, file in enumerate(outputs):
        damage(file, HOWS[number % 3])
    rows = copied / "metrics.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b'"loss": ', b'"loss": 1', 1))
    note = tmp_path / "note"
    line = ("main", *FLAGS, f"--workdir={copied}")
    code, out, err = nursery.run(*line, hooks=[("reads", str(copied), str(note))])
    assert code == 0, out + err
    for file in checkpoints:
        assert file.name in out, f"{file}: {out}"
    assert f"{rows}: 1 damaged of" in out
    read = set(map(Path, note.read_text().split("\n"))) & set(files)
    assert Path("metrics.jsonl") in read and not any(
        fnmatch(file, pattern) for file in read for pattern in OUTPUTS
    ), read
    found, expected = outcome(copied), outcome(whole)
    changed = {key for key in expected if found.get(key) != expected[key]}
    assert changed <= {"checkpoints", "flow_000004.png"}  # of a step that is not repeated
