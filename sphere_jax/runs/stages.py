"""The stages of a run, in order: trained or resumed and then measured; finished ones are loaded."""

import json
from functools import partial

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import write_json, write_npz
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.temporary import remove_leftovers
from sphere_jax.common.versions import versions
from sphere_jax.config.options import Config
from sphere_jax.config.reading import to_dict
from sphere_jax.data.class_names import classes_of, write_classes
from sphere_jax.distribution.mesh import split_batches
from sphere_jax.evaluation.fidelity import Fidelity
from sphere_jax.evaluation.figures import grid, save_grid
from sphere_jax.evaluation.score import curve_key
from sphere_jax.methods.base import Method, Tools
from sphere_jax.runs.finished import load_stage
from sphere_jax.runs.network_files import check_given, load_files
from sphere_jax.runs.provenance import check_pretrained, check_tokenizer, initial_params
from sphere_jax.runs.records import check_weights_exist
from sphere_jax.runs.run import Run
from sphere_jax.training.averages import lag_notes
from sphere_jax.training.checkpoints import Damaged
from sphere_jax.training.evaluator import Curve
from sphere_jax.training.loop import Feed, train
from sphere_jax.training.run_log import RunLog
from sphere_jax.training.throughput import measure_peak_flops
from sphere_jax.weights.stored import fingerprint_of


def start(run: Run) -> None:
    """Writes `config.json` and `classes.json`. Raises UserError if the folder holds a stage of
    another config, or if a stage could not start.
    """
    check_weights_exist(run.config)
    check_tokenizer(run.config)
    run.records.check_stages()
    for name in run.config.stages:
        record = run.records.read(name, check=True)
        if record is None or not record["finished"]:
            check_given(run.methods[name].files())
        check_batch(run.config, run.mesh, name, len(run.split.train))
    classes = classes_of(run.config.data)
    if is_main_process():
        remove_leftovers(run.workdir)
        content = {"config": to_dict(run.config), "versions": versions()}
        write_json(run.workdir / "config.json", content)
        write_classes(run.workdir, classes)


def train_stages(run: Run, log: RunLog, score=None) -> None:
    """Trains what is not finished; `score(params, what)` scores the stage that generates while it
    trains, every `config.evaluation.every` steps. Raises what `training.loop.train` raises.
    """
    settings = json.dumps(to_dict(run.config), indent=1)
    log.text("config", f"```json\n{settings}\n```")
    curve = _curve(run.config, score) if score and run.config.evaluation.every else None
    run.load_tokenizer()
    check_pretrained(run)
    peak_flops = None
    for name, method in run.methods.items():
        record = run.records.claim(name)
        frozen = method.frozen(run.artifacts)
        if record["finished"] and _loaded(run, name, record, log):
            _measure_again(run, name, frozen, record, log)
            continue
        peak_flops = peak_flops or measure_peak_flops(run.config.model.compute_dtype)
        options = run.config.stage(name)
        lags = lag_notes(options.ema_decay, options.steps) if options.weights == "ema" else []
        for sentence in [*method.notes(), *lags]:
            log.print(f"{name}: {sentence}")
        run.add_artifacts(load_files(method.files()))
        task = run.task(name, training=True)
        if task.options.accumulate > options.accumulate:
            log.print(f"{name}: {task.options.accumulate} micro-batches a step (most_per_device)")
        fidelity = _fidelity(run, method)  # raises for a missing file before training
        split = method.training_data(run.data_of(name), task.frozen, run.map_over)
        data = run.config.data
        params = train(
            task,
            Feed(
                split.train,
                split.heldout,
                data.flip,
                data.threads,
                data.workers,
                crops=data.random_crop != (),
            ),
            run.workdir / "checkpoints" / name,
            log,
            peak_flops,
            partial(_show, run, name, log),
            curve if name == run.config.generator else None,
            partial(initial_params, run, task),
            run.config.checkpoints,
        )
        _measure(run, name, task.frozen, params, record, log, fidelity)


def _curve(config: Config, score) -> Curve:
    """Its scores while the stage that generates trains."""
    evaluation = config.evaluation
    best = evaluation.keep_best and curve_key(evaluation.keep_best, config.features.name)
    lower = evaluation.keep_best == "frechet_distance"
    both = evaluation.curve_weights == "both"
    return Curve(score, evaluation.every, both, best, lower)


def _loaded(run: Run, name: str, record: dict, log: RunLog) -> bool:
    """Loads a finished stage, unless its last checkpoint is damaged."""
    try:
        load_stage(run, name, record)
    except Damaged as error:
        log.print(f"{name}: {error.what}; its last steps are trained again")
        return False
    log.print(f"{name}: finished before, skipped")
    return True


def _measure(run: Run, name: str, frozen, params, record: dict, log: RunLog, fidelity) -> None:
    """Measures a trained stage, writes the results, and marks it as finished."""
    method = run.methods[name]
    run.artifacts |= {part: params[part] for part in method.trains}
    tools = Tools(run.map_over, fidelity)
    outcome = method.measure(params, frozen, run.data_of(name), tools)
    run.add_artifacts(outcome.artifacts)
    run.metrics[name], run.arrays[name] = outcome.metrics, outcome.arrays
    for key, value in outcome.metrics.items():
        log.print(f"{name}: {key} = {value:.4g}")
    if is_main_process():
        flat = {f"array/{k}": v for k, v in outcome.arrays.items()}
        for part, leaves in outcome.artifacts.items():
            flat |= {f"artifact/{part}/{k}": v for k, v in leaves.items()}
        write_npz(run.workdir / "stages" / f"{name}.npz", flat)
        measured = {"metrics": outcome.metrics, "measured_with": _measured_with(run, method)}
        record = record | {"finished": True} | measured
        write_json(run.records.file(name), record, sealed=True)


def _measure_again(run: Run, name: str, frozen, record: dict, log: RunLog) -> None:
    """Measures a finished stage again if what its metrics depend on has changed."""
    method = run.methods[name]
    now = _measured_with(run, method)
    before = record.get("measured_with", record.get("yardsticks", now))  # old name
    if before == now:
        return
    log.print(f"{name}: measured again: the weights or options of its metrics have changed")
    params = {part: run.artifacts[part] for part in method.trains}
    record = {key: value for key, value in record.items() if key != "yardsticks"}
    _measure(run, name, frozen, params, record, log, _fidelity(run, method))


def _measured_with(run: Run, method: Method) -> dict:
    """What a stage's measurement depends on, weights by their fingerprints."""
    found, evaluation = method.measured_with(), run.config.evaluation
    if method.measures_fidelity:
        files = {"features": evaluation.pretrained, "lpips": evaluation.lpips}
        found |= {name: fingerprint_of(path) for name, path in files.items() if path}
    return found


def _fidelity(run: Run, method: Method) -> Fidelity | None:
    """Reconstruction metrics, for a method that measures by them. Raises UserError."""
    if not method.measures_fidelity:
        return None
    return Fidelity.load(run.config.evaluation, run.tokenizer.image_shape)


def check_batch(config: Config, mesh, name: str, count: int) -> None:
    """Raises UserError where a batch is not split evenly or `count` examples do not fill one."""
    options = config.stage(name)
    split_batches(mesh, name, options)
    if count < options.batch_size:
        raise UserError(
            f"config.{name}.batch_size={options.batch_size} is more than the {count} training "
            "examples."
        )


def _show(run: Run, name: str, log: RunLog, step: int, pictures: np.ndarray) -> None:
    if is_main_process():
        columns = run.methods[name].preview_columns
        save_grid(pictures, run.workdir / "samples" / f"{name}_{step:06d}.png", columns)
        log.picture(name, step, "preview", grid(pictures, columns))
