"""Trains arms or loads finished ones; a stage that two arms share is copied, not trained again."""

import re
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json
from sphere_jax.config.options import Config
from sphere_jax.config.reading import read_config
from sphere_jax.distribution.mesh import configured_mesh
from sphere_jax.runs.loading import stored_config
from sphere_jax.runs.records import options_of
from sphere_jax.runs.run import Run, open_run
from sphere_jax.runs.scoring import Scorer, score_run
from sphere_jax.runs.sharing import take_stage
from sphere_jax.runs.stages import start, train_stages
from sphere_jax.studies.comparing.matched import write_matched
from sphere_jax.training.run_log import RunLog
from sphere_jax.weights.stored import fingerprint_of

OWN_FILE = re.compile(r"comparison(\.(md|json|html)|-\d+\.png)")


def check_root(root: Path) -> None:
    """Raises UserError for a folder with anything that no comparison wrote."""
    for found in sorted(root.glob("*")) if root.is_dir() else []:
        arm = found.is_dir() and found.name.startswith("seed") and "-" in found.name
        if not arm and not OWN_FILE.fullmatch(found.name) and not found.name.startswith("."):
            raise UserError(
                f"{root} holds {found.name}, which no comparison wrote; give another --workdir."
            )


def finished_results(config: Config, workdir: Path) -> dict | None:
    """`results.json` of a finished arm, else None. Raises UserError if it is of another config.

    Data and weights may have moved, if they are the same.
    """
    stored, results = workdir / "config.json", workdir / "results.json"
    found = read_json(results, "delete it to score this arm again")
    if not stored.exists() or found is None:
        return None
    before = read_config(stored_config(workdir), stored=True)
    if _without_paths(before) != _without_paths(config):
        raise UserError(f"{workdir} was run with another config; give another --workdir.")
    if "metrics" not in found:
        raise UserError(f"{workdir} was run without scores; give another --workdir.")
    if not isinstance(found["metrics"], dict) or not isinstance(found.get("protocol"), dict):
        raise UserError(f"{results} is damaged; delete it to score this arm again.")
    if before != config:
        start(make_run(config, workdir))  # compares the fingerprints in its records
        path, features = config.evaluation.pretrained, found["protocol"]["features"]
        if path and fingerprint_of(path) != features["fingerprint"]:
            raise UserError(f"{workdir} was scored by other weights than {path} holds.")
    return found


def _without_paths(config: Config) -> dict:
    """The values that weights and scores are functions of, without paths of files."""
    options = options_of(config)
    return {k: o.value for k, o in options.items() if o.moves != "nothing" and not o.file}


def make_run(config: Config, workdir: Path) -> Run:
    return open_run(config, workdir, configured_mesh(config.mesh))


def open_arm(config: Config, workdir: Path, known: dict) -> tuple[Run, Scorer]:
    """Starts an arm: claims its folder and measures what it starts from (`matched.json`)."""
    run = make_run(config, workdir)
    scorer = Scorer(run, known)
    start(run)
    write_matched(run)
    return run, scorer


def train_arm(run: Run, scorer: Scorer, root: Path) -> dict:
    """Trains and scores an arm; returns what its `results.json` holds."""
    for name in run.config.stages:
        share_stage(run, name, root)
    log = RunLog(run.workdir)
    try:
        train_stages(run, log, scorer.point_of_curve)
        return score_run(run, log, scorer)
    finally:
        log.close()


def share_stage(run: Run, name: str, root: Path) -> None:
    """Copies a finished stage of another arm, if it depends on the same values."""
    if (run.workdir / "stages" / f"{name}.json").exists():
        return
    for record in sorted(root.glob(f"*/stages/{name}.json")):
        other = record.parent.parent
        if other != run.workdir and take_stage(run, name, other):
            print(f"{name}: shared with {other.name}", flush=True)
            return
