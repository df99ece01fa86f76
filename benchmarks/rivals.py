"""flow-sphere on digits beside Sphere Encoder and spherical flow matching, in equal training time.

    python -m benchmarks.rivals --out runs/rivals --seeds 0,1

Configs: mnist_flow_sphere, mnist_sphere_encoder with as many parameters, and mnist_slerp as it is.
Each rival is timed for some steps of every stage; then its stages are scaled by one factor, so that
together they train as many seconds as flow-sphere's run of that seed did. Compiling, previews and
scores are left out. `--config.flow_sphere.X=V` changes flow-sphere's run. The same command
resumes. At the end a table of all scores, by the protocol of the configs, is printed.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks import smoke
from sphere_jax import main as training
from sphere_jax.cli import run_command
from sphere_jax.config.config_files import load_config
from sphere_jax.training.run_log import read_rows

CONFIGS = smoke.ROOT / "configs"
TIMED = 60  # steps of a stage for its rate, counted after the first third


@dataclasses.dataclass(frozen=True)
class Rival:
    """A config with changes, "key=value". small: further ones of `--smoke`."""

    name: str
    config: str
    changes: tuple[str, ...]
    small: tuple[str, ...]

    def flags(self, *more: str) -> list[str]:
        changes = (f"--config.{change}" for change in (*self.changes, *more))
        return [f"--config={CONFIGS / self.config}.py", *changes]


def _of_stages(stages: str, *options: str) -> tuple[str, ...]:
    return tuple(f"{stage}.{option}" for stage in stages.split() for option in options)


QUICK = ("batch_size=4", "log_every=1", "optimizer.warmup=1")
BASE = Rival(
    "flow-sphere",
    "mnist_flow_sphere",
    (),
    (
        *_of_stages("tokenizer flow_sphere", "width=16", "depth=1", "head_dim=8", "hidden=16"),
        *_of_stages("flow_sphere", "steps=6", "warmup=1", *QUICK),
        "tokenizer.heads=1",
        "evaluation.at_steps=()",
    ),
)
RIVALS = (
    Rival(
        "Sphere Encoder",
        "mnist_sphere_encoder",
        ("tokenizer.depth=5",),  # 1.83M parameters; flow-sphere 1.89M
        (
            *_of_stages("tokenizer", "width=16", "depth=1", "heads=1", "mixer_depth=1"),
            *_of_stages("sphere_encoder", "strata=4", *QUICK),
            "evaluation.at_steps=()",
        ),
    ),
    Rival(
        "spherical flow matching",
        "mnist_slerp",
        (),
        (
            *_of_stages("vae decoder flow", *QUICK),
            *_of_stages("model", "width=16", "depth=1", "heads=1"),
            "tokenizer.widths=8,8",
        ),
    ),
)


def main(argv: list[str]) -> None:
    own = [flag for flag in argv if flag.startswith("--config.")]
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--out", required=True, help="a folder for all runs")
    flags.add_argument("--seeds", default="0,1")
    flags.add_argument("--timed", type=int, default=TIMED, help="steps of a stage to time")
    names = [rival.config for rival in RIVALS]
    flags.add_argument("--against", nargs="+", choices=names, default=names,
                       help="configs of the rivals to run (default: all)")  # fmt: skip
    flags.add_argument("--data", default="", help="digits in an .npz, instead of those shipped")
    args = smoke.parse(flags, [flag for flag in argv if flag not in own], _smoke)
    systems = [BASE, *(rival for rival in RIVALS if rival.config in args.against)]
    if args.smoke:
        systems = [dataclasses.replace(s, changes=(*s.changes, *s.small)) for s in systems]
    base, *rivals = systems
    shared = ["data.source=npz", f"data.path={args.data}"] if args.data else []
    shared += ["evaluation.samples=8", "evaluation.classifier_steps=2"] if args.smoke else []
    out, rows = Path(args.out), []
    with contextlib.redirect_stdout(sys.stderr):
        for seed in args.seeds.split(","):
            rows.append(train(out, seed, base, shared, own))
            seconds = rows[-1]["seconds"]
            for rival in rivals:
                steps = steps_for(seconds, stage_rates(out, rival, args.timed, shared))
                rows.append(train(out, seed, rival, [*shared, *steps], []))
    print_table(sorted(rows, key=lambda row: [s.name for s in systems].index(row["system"])))


def train(out: Path, seed: str, system: Rival, changes: list[str], flags: list[str]) -> dict:
    """Trains and scores a run, if it is not finished; what a row of the table says."""
    workdir = out / f"seed{seed}-{system.config}"
    if not (workdir / "results.json").exists():
        command = [*system.flags(f"seed={seed}", *changes), f"--workdir={workdir}", *flags]
        training.main(command)
    found = json.loads((workdir / "results.json").read_text())
    last = {row["stage"]: row for row in timed_rows(workdir)}
    return {
        "system": system.name,
        "seed": seed,
        "steps": " + ".join(f"{row['step']:,}" for row in last.values()),
        "seconds": sum(row["training_seconds"] for row in last.values()),
        "NFE": found["nfe"],
        **found["metrics"],
    }


def stage_rates(
    out: Path, system: Rival, steps: int, changes: list[str]
) -> dict[str, tuple[int, float]]:
    """(steps of the config, seconds a step) of every stage, by a short run without scores."""
    config = load_config(f"{CONFIGS / system.config}.py", [])
    workdir = out / f"rates-{system.config}"
    stages = " ".join(config.stages)
    short = (f"steps={steps}", f"log_every={steps // 3}", "optimizer.warmup=1")
    if not (workdir / "results.json").exists():
        changes = [*changes, *_of_stages(stages, *short), "evaluation.samples=0"]
        training.main([*system.flags(*changes), f"--workdir={workdir}"])
    rates, rows = {}, timed_rows(workdir)
    for stage in config.stages:
        timed = {row["step"]: row["training_seconds"] for row in rows if row["stage"] == stage}
        first, last = min(timed), max(timed)
        each = (timed[last] - timed[first]) / (last - first)
        rates[stage] = config.stage(stage).steps, each
    return rates


def steps_for(seconds: float, rates: dict[str, tuple[int, float]]) -> list[str]:
    """Changes that scale all stages by one factor, to take so many seconds together."""
    factor = seconds / sum(steps * each for steps, each in rates.values())
    return [f"{stage}.steps={max(round(factor * steps), 6)}"
            for stage, (steps, _) in rates.items()]  # fmt: skip


def timed_rows(workdir: Path) -> list[dict]:
    return [row for row in read_rows(workdir / "metrics.jsonl") if "training_seconds" in row]


def print_table(rows: list[dict]) -> None:
    keys = list(rows[0])
    print("| " + " | ".join(key.replace("_", " ") for key in keys) + " |")
    print("|" + " --- |" * len(keys))
    for row in rows:
        cells = (row[key] for key in keys)
        texts = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
        print("| " + " | ".join(texts) + " |")


def _smoke() -> list[str]:
    folder = smoke.folder()
    images = smoke.random_images(60, 32)[..., :1]
    np.savez(folder / "images.npz", images=images, labels=np.arange(60) % 10)
    return [
        f"--data={folder / 'images.npz'}",
        f"--out={folder / 'runs'}",
        "--seeds=0",
        "--timed=6",
        "--against=mnist_sphere_encoder",
    ]


if __name__ == "__main__":
    run_command(main)
