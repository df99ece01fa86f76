"""Stages that another run has finished, taken instead of trained: their records must agree."""

import shutil
from pathlib import Path

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError, first_line
from sphere_jax.common.files import write_json
from sphere_jax.common.processes import barrier, is_main_process, told_by_main_process
from sphere_jax.common.progress import log
from sphere_jax.config.options import Config
from sphere_jax.config.reading import read_config
from sphere_jax.runs.loading import stored_config
from sphere_jax.runs.records import difference, read_record
from sphere_jax.runs.run import Run
from sphere_jax.training.run_log import read_rows, write_rows


def take_stages(run: Run, other: Path) -> None:
    """Copies every finished stage of the run in `other` that this run would train to the same
    weights and has not started. The last stage may be one of fewer steps, if it can go on.

    Raises UserError for another folder, and if nothing there fits.
    """
    _check_store(other)
    new = [name for name in run.config.stages if not run.records.file(name).exists()]
    new = told_by_main_process(new)  # before it copies some
    refusals = []
    for name in new:
        record = read_record(other / "stages" / f"{name}.json")
        if record is None or not record["finished"]:
            refusals.append(f"it has no finished stage '{name}'")
        elif take_stage(run, name, other):
            log(f"{name}: taken from {other}")
        else:
            try:
                run.records.compare(name, record, f"its stage '{name}' was trained")
                _copy(run, name, other, {"depends": record["depends"], "finished": False})
                log(f"{name}: taken from {other}, to go on in more steps")
            except UserError as error:
                refusals.append(str(error).partition(";")[0])
                log(f"{name}: trained here; {refusals[-1]} ({other})")
    if new and len(refusals) == len(new):
        raise UserError(f"--from_run={other} has nothing to take: {refusals[0]}.")


def _check_store(other: Path) -> None:
    """Raises UserError for a folder that is no run's, and for a run whose checkpoints are not in
    it."""
    store = read_config(stored_config(other), stored=True).checkpoints.store
    if store:
        raise UserError(
            f"The checkpoints of {other} are in {store}, and are not copied from there; name a run "
            "that has them in its folder."
        )


def take_stage(run: Run, name: str, other: Path) -> bool:
    """Copies the finished stage `name` of the run in `other`, if it depends on the same values;
    whether it did."""
    record = read_record(other / "stages" / f"{name}.json")
    depends = run.records.depends(name, (record or {}).get("depends", {}))
    needed = _weights_depend_on(name, depends)
    if not record or not record["finished"]:
        return False
    if difference(_weights_depend_on(name, record["depends"]), needed, run.config):
        return False
    _copy(run, name, other, record | {"depends": depends})
    return True


def _copy(run: Run, name: str, other: Path, record: dict) -> None:
    if is_main_process():
        try:
            _copy_files(run, name, other)
        except OSError as error:  # of shutil, too, which has several in one and no file's name
            raise UserError(
                f"Cannot copy stage '{name}' of {other} to {run.workdir} "
                f"({first_line(error)}); the same command tries again."
            ) from error
        # Last: it says that the stage is there.
        write_json(run.records.file(name), record, sealed=True)
    barrier(f"stage {name} is copied")


def _copy_files(run: Run, name: str, other: Path) -> None:
    checkpoints = run.workdir / "checkpoints"
    config = read_config(stored_config(other), stored=True)
    alike = _same_sampling(config, run.config)
    best = (f"{name}-best", f"{name}-best.crc32") if alike else ()
    for folder in (name, f"{name}.crc32", f"{name}-ema", *best):
        if (other / "checkpoints" / folder).is_dir():
            source = other / "checkpoints" / folder
            shutil.copytree(source, checkpoints / folder, dirs_exist_ok=True)
    own = [r for r in read_rows(run.workdir / "metrics.jsonl") if r["stage"] != name]
    shared = [r for r in read_rows(other / "metrics.jsonl") if r["stage"] == name]
    if not alike:  # scores while training are of their sampler
        shared = [row for row in shared if "images_trained" not in row]
    write_rows(run.workdir / "metrics.jsonl", own + shared)
    if (other / "evaluator").exists() and config.evaluation == run.config.evaluation:
        shutil.copytree(other / "evaluator", run.workdir / "evaluator", dirs_exist_ok=True)
    (run.workdir / "stages").mkdir(exist_ok=True)
    shutil.copy2(other / "stages" / f"{name}.npz", run.workdir / "stages")


def _weights_depend_on(name: str, depends: dict) -> dict:
    """Of a record's `depends`, what the weights of stage `name` are a function of: a generator of
    latents never reads the decoder that an earlier stage trains for the same latents."""
    methods = {
        key.split(".")[1]: plugins.find("methods", "METHOD", value, key)
        for key, value in depends.items()
        if key.endswith(".method")
    }
    if name not in methods or not methods[name].on_latents:
        return depends
    tuned = [
        stage
        for stage, method in methods.items()
        if not method.changes_latents(_options_in(depends, stage))
    ]
    starts = tuple(f"config.{stage}." for stage in tuned)
    rest = {key: value for key, value in depends.items() if not key.startswith(starts)}
    earlier = [stage for stage in depends["earlier stages"] if stage not in tuned]
    return rest | {"earlier stages": earlier}


def _options_in(depends: dict, stage: str) -> dict:
    """The options of a stage, of a record's `depends`."""
    start = f"config.{stage}."
    return {key.removeprefix(start): v for key, v in depends.items() if key.startswith(start)}


def _same_sampling(one: Config, other: Config) -> bool:
    """Whether the same weights would draw the same images."""
    groups = ("sampler", "space", "evaluation", "data")
    alike = all(getattr(one, group) == getattr(other, group) for group in groups)
    return alike and _decoders(one) == _decoders(other)


def _decoders(config: Config) -> list:
    """What finetunes the decoder."""
    stages = {name: config.stage(name) for name in config.stages}
    return [
        (name, options)
        for name, options in stages.items()
        if not config.method(name).changes_latents(vars(options))
    ]
