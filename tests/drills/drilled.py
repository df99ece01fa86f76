"""The smallest run that trains, saves, scores on the way, draws and reports; what it must be to the
bit, however often it was interrupted; a nursery, in which commands start at once; and damage."""

import json
import os
import random
import subprocess
import sys
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
QUICK = (  # of tests/conftest.py
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
SEED = int(os.environ.get("DRILL_SEED", "0"))
choose = random.Random(SEED)


class Nursery:
    """Commands that start without imports. `prefix`: what runs the nursery itself."""

    def __init__(self, folder: Path, *prefix: str):
        self._folder, self._started = folder, 0
        place = f"{tiny_run.ROOT}{os.pathsep}{Path(__file__).parent}"
        env = tiny_run.environment(XLA_FLAGS=os.environ.get("XLA_FLAGS", QUICK), PYTHONPATH=place)
        line = [*prefix, sys.executable, str(Path(__file__).with_name("nursery.py"))]
        self.process = subprocess.Popen(
            line, cwd=tiny_run.ROOT, env=env, stdin=-1, stdout=-1, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, *argv, hooks=(), **env) -> tuple[int, Path]:
        """The id of a new process, and where what it prints goes: with the suffixes out and err."""
        self._started += 1
        out = self._folder / str(self._started)
        job = {"argv": list(map(str, argv)), "env": env, "out": str(out), "hooks": list(hooks)}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline()), out

    def end(self, out: Path) -> tuple[int, str, str]:
        """Exit code, output and errors of the process that was started last, when it has ended."""
        code = int(self.process.stdout.readline())
        return code, Path(f"{out}.out").read_text(), Path(f"{out}.err").read_text()

    def run(self, *argv, hooks=(), **env) -> tuple[int, str, str]:
        _, out = self.start(*argv, hooks=hooks, **env)
        return self.end(out)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


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
