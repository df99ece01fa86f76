"""The smallest run that trains, saves, scores on the way, draws and reports; what it must be to the
bit, however often it was interrupted; and damage."""

import json
import os
import random
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import tiny_run

from sphere_jax.common.errors import UserError
from sphere_jax.training.run_log import read_rows

FLAGS = [
    *tiny_run.FLAGS,
    "--config.stages=vae,flow",
    "--config.vae.steps=2",
    "--config.flow.steps=8",
    "--config.flow.checkpoint_every=2",
    "--config.flow.preview_every=4",
    "--config.model.depth=1",
    "--config.sampler.steps=2",
    "--config.evaluation.classifier_steps=4",
    "--config.evaluation.every=4",
    "--config.evaluation.curve_samples=40",
    "--config.evaluation.keep_best=frechet_distance",
]
TIMED = {
    "images_per_second", "steps_per_second", "model_flop_utilisation", "training_seconds",
    "input_wait",
}  # fmt: skip
SEED = int(os.environ.get("DRILL_SEED", "0"))
choose = random.Random(SEED)


def outcome(workdir: Path) -> dict:
    """All that a finished run holds and that does not depend on how fast it was."""
    found = {}
    for stage, step, item in (("vae", 2, "ema"), ("flow", 8, "ema"), ("flow", 8, "optimizer"),
                              ("flow-best", None, "ema")):  # fmt: skip
        folder = workdir / "checkpoints" / stage
        (step,) = [step] if step else [int(path.name) for path in folder.iterdir()]
        tree = ocp.StandardCheckpointer().restore(folder / str(step) / item)
        leaves, _ = ocp.tree.to_flat_dict(tree, sep="/"), step
        found |= {f"{stage} {step} {item} {k}": np.asarray(v).tobytes() for k, v in leaves.items()}
    for row in read_rows(workdir / "metrics.jsonl"):
        key = f"{row['stage']} {row['step']} {'loss' in row} {'heldout_loss' in row}"
        assert key not in found, f"{key} is there twice"
        found[key] = {name: value for name, value in row.items() if name not in TIMED}
    found["results"] = json.loads((workdir / "results.json").read_text())
    found |= {f.name: f.read_bytes() for f in (workdir / "samples").glob("*.png")}
    with np.load(workdir / "samples" / "first.npz") as stored:
        found |= {name: stored[name].tobytes() for name in stored.files}
    found["config"] = json.loads((workdir / "config.json").read_text())["config"]  # not versions
    for name in ("classes.json", "stages/vae.json", "stages/flow.json"):
        file = workdir / name
        found[name] = json.loads(file.read_text()) if file.exists() else None
    known = {"metrics.jsonl", "report.html", "tensorboard", "checkpoints", "samples", "stages",
             "config.json", "classes.json", "results.json", ".lock", "evaluator"}  # fmt: skip
    found["besides"] = sorted({path.name for path in workdir.iterdir()} - known)
    found["left over"] = [str(path) for path in workdir.rglob("*tmp*")]
    found["checkpoints"] = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    return found


def check_same(workdir: Path, whole: Path) -> None:
    """Both runs have the same bits, and nothing is left over."""
    found, expected = outcome(workdir), outcome(whole)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, f"{name} differs"
    assert not found["besides"] and not found["left over"]


def damage(file: Path, how: str) -> str:
    """Changes `file`; says what was done."""
    content = file.read_bytes()
    at = choose.randrange(max(len(content), 1))
    if how == "deleted" or not content:
        file.unlink()
        return f"{file} deleted (seed {SEED})"
    if how == "cut":
        file.write_bytes(content[: min(at, len(content.rstrip()) - 1)])  # not a last newline alone
    else:
        bit = 1 << choose.randrange(8)
        file.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
    return f"{file} {how} at {at} of {len(content)} (seed {SEED})"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def raised(call, *arguments) -> str:
    """The sentence that a call is refused with; "" if it is not."""
    try:
        call(*arguments)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""
