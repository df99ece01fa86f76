"""Trains the arms of a matched comparison over seeds and writes their page.

    python -m sphere_jax.compare --config=configs/mnist_slerp.py --workdir=runs/compare \\
        --vary=space.path=linear,shell_linear,nlerp,slerp --seeds=0,1,2 \\
        --config.evaluation.every=250
"""

import shlex
import time
from pathlib import Path

from sphere_jax.cli import Parser, run_command, user_path
from sphere_jax.common.errors import UserError, shortened
from sphere_jax.config.config_files import load_config

EPILOG = """\
arms:
  --vary=space.path=linear,slerp                          one key, several values
  --vary=space.path=linear,slerp --vary=flow.steps=1000,2000       all four combinations
  --arm=plain:space.path=linear --arm='ours:space.path=slerp,stages=(vae,decoder,flow)'
  --arms=configs/arms/slerp_ablation.py                   get_arms(config) -> {name: {key: value}}

Arms differ in the named values alone; data order, initial weights, noise, steps and optimizer are
functions of the seed, and hashes of the arrays are compared before a second arm trains. A stage
that an arm shares with a finished one (the VAE does not depend on the path) is copied, not trained
again. Each arm has a run folder, WORKDIR/seedS-NAME, with a report. The same command resumes after
an interruption: finished arms are skipped, interrupted ones are resumed.

After every arm WORKDIR/comparison.html, .md and .json are written: curves with bands over seeds
(with --config.evaluation.every=N), steps and time to a target, differences from the baseline with
intervals, samples from equal noise. See docs/compare.md.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument(
        "--config", type=user_path, required=True, help="a file, or a name in configs/: the base"
    )
    flags.add_argument(
        "--workdir", type=user_path, required=True, help="where the arms and their page go"
    )
    flags.add_argument(
        "--vary", action="append", default=[], metavar="KEY=VALUES", help="may be repeated"
    )
    flags.add_argument(
        "--arm", action="append", default=[], metavar="NAME:KEY=VALUE,...", help="may be repeated"
    )
    flags.add_argument(
        "--arms",
        type=user_path,
        default="",
        metavar="FILE.py",
        help="a file of named arms, or a name in configs/arms/",
    )
    flags.add_argument("--seeds", default="0,1,2", help="comma separated")
    flags.add_argument("--baseline", default="", metavar="NAME", help="by default the first arm")
    flags.add_argument(
        "--target",
        default="",
        metavar="METRIC:VALUE",
        help="score to reach in fewer steps (default: the last one of the baseline)",
    )
    shared = [a for a in argv if a.startswith("--config.")]
    arguments = flags.parse_args([a for a in argv if a not in shared])

    from sphere_jax.studies.comparing import arms as parsing

    base = load_config(arguments.config, shared)
    named = parsing.file_arms(arguments.arms, base) if arguments.arms else []
    named += [parsing.named_arm(text) for text in arguments.arm]
    arms = parsing.product(named, parsing.vary_arms(arguments.vary))
    if not arms:
        raise UserError("There are no arms to compare: give --vary, --arm or --arms.")
    seeds = _seeds(arguments.seeds)
    baseline = arguments.baseline or arms[0].name
    if baseline not in [arm.name for arm in arms]:
        known = ", ".join(f"'{arm.name}'" for arm in arms)
        raise UserError(f"--baseline={shortened(baseline)} is none of the arms: {known}.")
    configs = parsing.plan(arguments.config, shared, arms, seeds)
    one_key = len(arguments.vary) == 1 and not named
    label = arguments.vary[0].partition("=")[0] if one_key else "arm"

    from sphere_jax.studies.comparing.outcomes import Comparison
    from sphere_jax.studies.comparing.running import check_root

    root = Path(arguments.workdir)
    check_root(root)
    target = _target(arguments.target, configs)
    command = shlex.join(["python", "-m", "sphere_jax.compare", *argv])
    run_all(Comparison(root, label, arms, seeds, configs, baseline, target, command))


def run_all(comparison) -> None:
    """Every arm, the baseline of a seed first; the page after each."""
    from sphere_jax.common.files import make_folder
    from sphere_jax.common.folder_lock import only_writer
    from sphere_jax.data.source import load
    from sphere_jax.runs.records import check_weights_exist
    from sphere_jax.runs.reference import check_reference

    configs = comparison.configs.values()
    if any(config.checkpoints.store for config in configs):
        raise UserError("Arms share checkpoints in --workdir: leave config.checkpoints.store out.")
    for config in {(c.data, c.evaluation): c for c in configs}.values():  # before one trains
        check_reference(config)
    for config in configs:
        check_weights_exist(config)
    several = dict.fromkeys(config.data for config in configs)
    for data in several if len(several) > 1 else ():
        load(data)
    make_folder(comparison.root)
    with only_writer(comparison.root):
        _run_arms(comparison)


def _run_arms(comparison) -> None:
    from sphere_jax.common.files import make_folder
    from sphere_jax.common.folder_lock import only_writer
    from sphere_jax.common.progress import duration
    from sphere_jax.studies.comparing import running
    from sphere_jax.studies.comparing.comparison_page import write_page
    from sphere_jax.studies.comparing.outcomes import read_outcome

    first = sorted(comparison.names, key=lambda name: name != comparison.baseline)
    todo = [(seed, name) for seed in comparison.seeds for name in first]
    known, spent, pending = {}, [], False
    for number, (seed, name) in enumerate(todo, 1):
        config, workdir = comparison.configs[seed, name], comparison.workdir(seed, name)
        line = f"== arm {number} of {len(todo)}: {comparison.label} {name}, seed {seed}; "
        line += f"{len(comparison.outcomes)} done"
        if spent:
            left = sum(spent) / len(spent) * (len(todo) - number + 1)
            line += f", about {duration(left)} left"
        print(line, flush=True)
        results = running.finished_results(config, workdir)
        if results and (workdir / "matched.json").exists():
            print("finished before, skipped", flush=True)
            comparison.outcomes[seed, name] = read_outcome(workdir, results, config)
            pending = True
            continue
        if pending:  # a page to look at while this arm trains
            write_page(comparison)
        started = time.monotonic()
        make_folder(workdir)
        with only_writer(workdir):
            results = _run_arm(comparison, seed, name, known, results)
        comparison.outcomes[seed, name] = read_outcome(workdir, results, config)
        spent.append(time.monotonic() - started)
        write_page(comparison)
    print(f"\n{write_page(comparison)}\npage: {comparison.root / 'comparison.html'}", flush=True)


def _run_arm(comparison, seed: int, name: str, known: dict, results: dict | None) -> dict:
    """Trains and scores an arm, if `results` are not there; returns them."""
    from sphere_jax.common.errors import UserError
    from sphere_jax.studies.comparing import running
    from sphere_jax.studies.comparing.outcomes import check_started

    config, workdir = comparison.configs[seed, name], comparison.workdir(seed, name)
    run, scorer = running.open_arm(config, workdir, known)
    if not scorer.scores:
        raise UserError("A comparison needs scores, and these latents have no decoder.")
    check_started(comparison, seed, name, _items(workdir))
    return results or running.train_arm(run, scorer, comparison.root)


def _items(workdir: Path) -> dict[str, str]:
    from sphere_jax.studies.comparing.matched import read_matched

    return read_matched(workdir) or {}


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds={shortened(text)} must be numbers, say 0,1,2.") from None
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={shortened(text)} must be different.")
    return seeds


def _target(text: str, configs):
    from sphere_jax.evaluation.score import curve_metrics
    from sphere_jax.studies.comparing.outcomes import Target

    if not text:
        return None
    metric, _, value = text.rpartition(":")
    known = curve_metrics(next(iter(configs.values())).evaluation.features)
    found = [name for name in known if metric and name.startswith(metric)]
    try:
        target = Target(found[0], float(value))
    except (IndexError, ValueError):
        raise UserError(
            f"--target={shortened(text)} must be METRIC:VALUE, METRIC one of these or the start of "
            f"one: {', '.join(known)}."
        ) from None
    if any(config.evaluation.every == 0 for config in configs.values()):
        raise UserError("--target needs scores while training: --config.evaluation.every=N.")
    return target


if __name__ == "__main__":
    run_command(main)
