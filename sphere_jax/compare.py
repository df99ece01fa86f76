"""Trains the arms of a matched comparison over seeds and prints their table.

    python -m sphere_jax.compare --config=configs/mnist_slerp.py --workdir=runs/compare \\
        --vary=space.path=linear,shell_linear,nlerp,slerp --seeds=0,1,2
"""

import json
import shutil
from pathlib import Path

import numpy as np

from sphere_jax.cli import load_config, parser, run_command
from sphere_jax.config import read_config, to_dict

EPILOG = """\
Every arm differs from the others in the one varied value; data order, initial weights, noise,
steps and optimizer are functions of the seed. A stage that an arm shares with a finished one (the
VAE, say, which knows nothing of paths) is copied, not trained again. Arms are run folders of their
own, WORKDIR/seedS-VALUE, with their reports; finished ones are skipped, interrupted ones go on.
Ends with WORKDIR/comparison.md and comparison.json: mean and standard deviation over seeds.
"""


def main(argv: list[str]) -> None:
    flags = parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("--config", required=True, help="a file in configs/")
    flags.add_argument("--workdir", required=True, help="where the arms and the table go")
    flags.add_argument("--vary", required=True, help="KEY=VALUE,VALUE,... of the config")
    flags.add_argument("--seeds", default="0,1,2", help="comma separated (default 0,1,2)")
    shared = [a for a in argv if a.startswith("--config.")]
    arguments = flags.parse_args([a for a in argv if a not in shared])

    from sphere_jax.consistency import LATENT_SOURCES
    from sphere_jax.errors import UserError

    key, equals, values = arguments.vary.partition("=")
    if not equals or not values:
        raise UserError(
            f"--vary={arguments.vary} must be KEY=VALUE,VALUE, say space.path=linear,slerp."
        )
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        raise UserError(f"--seeds={arguments.seeds} must be numbers, say 0,1,2.") from None
    root = Path(arguments.workdir)
    results: dict[str, list[dict]] = {value: [] for value in values.split(",")}
    plan = {  # every arm is checked before the first one trains
        (seed, value): load_config(
            arguments.config, [*shared, f"--config.{key}={value}", f"--config.seed={seed}"]
        )
        for seed in seeds
        for value in results
    }
    for config in plan.values():
        scored = config.evaluation.samples > 0 and config.data.source not in LATENT_SOURCES
        if not config.generator or not scored:
            raise UserError(
                "A comparison needs scores: a stage that generates, a decoder, and "
                "config.evaluation.samples above 0."
            )
    for number, ((seed, value), config) in enumerate(plan.items(), 1):
        print(f"== arm {number} of {len(plan)}: {key}={value}, seed {seed}", flush=True)
        results[value].append(run_arm(config, root / f"seed{seed}-{value}", root))
    write_table(root, key, seeds, results)


def run_arm(config, workdir: Path, root: Path) -> dict:
    """`results.json` of one arm, trained unless it is there already."""
    from sphere_jax.distribution.mesh import make_mesh
    from sphere_jax.errors import UserError
    from sphere_jax.experiment import open_run
    from sphere_jax.scoring import score_run
    from sphere_jax.training.logging import RunLog

    stored = workdir / "config.json"
    if stored.exists() and (workdir / "results.json").exists():
        before = json.loads(stored.read_text())["config"]
        if before != json.loads(json.dumps(to_dict(config))):
            raise UserError(f"{workdir} was run with another config; give another --workdir.")
        print("finished before, skipped", flush=True)
        return json.loads((workdir / "results.json").read_text())
    run = open_run(config, workdir, make_mesh(config.mesh.data, config.mesh.fsdp))
    run.begin()
    for name in config.stages:
        _share(run, name, root)
    log = RunLog(workdir)
    run.train_stages(log)
    results = score_run(run, log)
    log.close()
    return results


def _share(run, name: str, root: Path) -> None:
    """Copies a finished stage of another arm, if it depends on the very same values."""
    from sphere_jax.training.logging import read_rows, write_rows

    if (run.workdir / "stages" / f"{name}.json").exists():
        return
    depends = run.depends(name)
    for record in sorted(root.glob(f"*/stages/{name}.json")):
        content, other = json.loads(record.read_text()), record.parent.parent
        if not content["finished"] or content["depends"] != depends:
            continue
        print(f"{name}: shared with {other.name}", flush=True)
        for folder in (name, f"{name}.crc32"):
            target = run.workdir / "checkpoints" / folder
            shutil.copytree(other / "checkpoints" / folder, target, dirs_exist_ok=True)
        own = [r for r in read_rows(run.workdir / "metrics.jsonl") if r["stage"] != name]
        shared = [r for r in read_rows(other / "metrics.jsonl") if r["stage"] == name]
        write_rows(run.workdir / "metrics.jsonl", own + shared)
        if (other / "evaluator").exists() and run.config.evaluation == evaluation_of(other):
            shutil.copytree(other / "evaluator", run.workdir / "evaluator", dirs_exist_ok=True)
        (run.workdir / "stages").mkdir(exist_ok=True)
        shutil.copy2(record.with_suffix(".npz"), run.workdir / "stages")
        shutil.copy2(record, run.workdir / "stages")  # last: it says that the stage is finished
        return


def evaluation_of(workdir: Path):
    """The evaluation settings of an arm; only among equal ones is a feature network shared."""
    return read_config(json.loads((workdir / "config.json").read_text())["config"]).evaluation


def write_table(root: Path, key: str, seeds: list[int], results: dict[str, list[dict]]) -> None:
    """One row an arm: mean and standard deviation over seeds of every metric."""
    from sphere_jax.evaluation.report import describe
    from sphere_jax.files import write_json, write_text

    first = next(iter(results.values()))[0]
    names = list(first["metrics"])
    header = [key, *(describe(name)[0] for name in names)]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    summary = {}
    for value, runs in results.items():
        columns = {name: [_number(run["metrics"][name]) for run in runs] for name in names}
        summary[value] = columns
        cells = [_mean_and_deviation(columns[name]) for name in names]
        lines.append("| " + " | ".join([value, *cells]) + " |")
    cells = [f"{_number(first['yardstick'][name]):.3f}" for name in names]
    lines.append("| " + " | ".join(["*yardstick*", *cells]) + " |")
    spent = sorted({run["nfe"] for runs in results.values() for run in runs})
    lines.append(f"\n{len(seeds)} seeds ({', '.join(map(str, seeds))}): mean ± standard deviation; "
                 f"NFE {', '.join(map(str, spent))}.")  # fmt: skip
    table = "\n".join(lines) + "\n"
    write_text(root / "comparison.md", table)
    write_json(root / "comparison.json", {"vary": key, "seeds": seeds, "arms": summary})
    print("\n" + table, flush=True)


def _mean_and_deviation(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _number(value: float | None) -> float:
    """JSON stores NaN as null."""
    return float("nan") if value is None else value


if __name__ == "__main__":
    run_command(main)
