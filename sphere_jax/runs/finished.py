"""Loads the results of finished stages from the folder of a run."""

from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.runs.records import DATA
from sphere_jax.runs.run import Run
from sphere_jax.training.best import best_folder
from sphere_jax.training.checkpoints import Checkpoints, Damaged

WEIGHTS = {"ema": "ema", "raw": "params", "best": "best"}  # --weights: items of a checkpoint


def load_stages(run: Run, generators: bool = True, weights: str = "") -> None:
    """The artifacts of a finished run, for sampling; with `generators` False, without those of
    stages on latents. `weights`, of `WEIGHTS`: those of the stage that generates that are used
    instead of what its options name. Raises UserError if it is not finished, or its `config.json`
    is not the config that it was trained with."""
    records = finished_records(run)
    run.load_tokenizer()
    for name, record in records.items():
        if generators or not run.methods[name].on_latents:
            load_stage(run, name, record, weights if name == run.config.generator else "")


def finished_records(run: Run) -> dict[str, dict]:
    """The record of every stage, in order, compared with the config. Raises UserError as
    `load_stages` does."""
    run.records.check_stages()
    records = {name: run.records.read(name) for name in run.config.stages}
    for name, record in records.items():
        if record is None or not record["finished"]:
            raise UserError(
                f"{run.workdir} has no finished stage '{name}'; run sphere_jax.main first."
            )
    # The last stage first: it reads most of the config, so it names the edited value itself.
    for name, record in reversed(records.items()):
        run.records.check_trained(name, record)
    return records


def check_data(run: Run) -> None:
    """Raises UserError if the run's data are not those that its stages were trained on."""
    for name in run.config.stages:
        trained_on = run.records.read(name)["depends"].get(DATA, "")
        if trained_on != run.data_fingerprint_like(trained_on):
            raise UserError(
                f"{run.workdir} was trained on other data than config.data names now; "
                "restore that data."
            )


def load_stage(run: Run, name: str, record: dict, weights: str = "") -> None:
    """A finished stage: its parameters onto the mesh, its arrays to the host; `weights` as of
    `load_stages`. Raises UserError."""
    task = run.task(name)
    item = task.weights_item
    if weights == "best":
        folder = best_folder(run.workdir / "checkpoints" / name)
        if not folder.is_dir():
            raise UserError(
                f"{run.workdir} has kept no best weights of stage '{name}'; train with "
                "config.evaluation.every and config.evaluation.keep_best."
            )
    elif weights:
        item = WEIGHTS[weights]
    checkpoints = Checkpoints(folder) if weights == "best" else run.checkpoints(name)
    step = checkpoints.latest()
    try:
        if step is None or (weights != "best" and step != task.options.steps):
            what = "kept weights" if weights == "best" else "last checkpoint"
            raise Damaged(f"Stage '{name}' of {run.workdir} is finished but lacks its {what}")
        params = checkpoints.restore_item(step, item, task.abstract_state[item])
    except Damaged as error:
        if weights != "best":
            raise
        raise UserError(
            f"{error.what}; restore it from a copy, or leave out --weights=best: the weights of "
            "the last step are a checkpoint of their own."
        ) from error
    checkpoints.close()
    if weights:
        run.override = f"best, of step {step:,}" if weights == "best" else weights
    run.artifacts |= {part: params[part] for part in task.method.trains}
    run.metrics[name] = record["metrics"]
    run.arrays[name], artifacts = stored_arrays(run.workdir / "stages" / f"{name}.npz")
    run.add_artifacts(artifacts)


def stored_arrays(file: Path) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """The arrays and the artifacts of a finished stage. Raises UserError."""
    arrays, artifacts = {}, {}
    try:
        with np.load(file, allow_pickle=False) as stored:
            for key in stored.files:
                kind, *path = key.split("/")
                if kind == "array":
                    arrays[path[0]] = stored[key]
                else:
                    artifacts.setdefault(path[0], {})[path[1]] = stored[key]
    except Exception as error:  # zipfile raises its own kinds for a damaged archive
        raise UserError(
            f"{file} cannot be read ({error}); delete stages/{file.stem}.json beside it and run "
            "sphere_jax.main again: the stage is only measured again."
        ) from error
    return arrays, artifacts
