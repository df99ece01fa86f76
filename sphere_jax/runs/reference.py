"""What the samples of a run are scored against: images, and the network whose features compare."""

import time
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import duration, log
from sphere_jax.config.options import Config
from sphere_jax.data.source import Split
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.evaluation.features.base import Features
from sphere_jax.evaluation.score import Reference, prepare_reference
from sphere_jax.runs.run import Run
from sphere_jax.weights.stored import fingerprint_of


def check_reference(config: Config) -> Features | None:
    """Raises UserError, before anything trains, where images or published weights are missing.

    Returns the feature network, if its weights come from a file.
    """
    config.source.images_behind(config)
    features, path, data = config.features, config.evaluation.pretrained, config.data
    if not features.needs_weights:
        return None
    if not path:
        raise UserError(
            f"config.evaluation.pretrained is empty; give it the weights of '{features.name}', "
            f"which python -m sphere_jax.convert --network {features.weights} --out F.safetensors "
            "writes."
        )
    return features.load(path, (data.image_size, data.image_size, data.channels))


def check_enough(config: Config, split: Split) -> None:
    """Raises UserError, before anything trains, for data that nothing can be scored against."""
    evaluation, classes = config.evaluation, config.data.num_classes
    if config.features.needs_classes and classes < 2:
        raise UserError(
            f"config.evaluation.features='{evaluation.features}' needs two classes or more, and "
            f"config.data.num_classes={classes}; give published features, or evaluation.samples=0."
        )
    if len(split.heldout) <= evaluation.neighbours:
        raise UserError(
            f"{len(split.heldout)} held-out images are too few to score against; "
            f"config.evaluation.neighbours={evaluation.neighbours} needs one more than that."
        )


def reference_of(run: Run, known: dict | None = None) -> Reference:
    """The feature network and the pixel classifier for a run's data.

    A feature network without published weights is trained once and cached in the run's folder.
    `known` caches references for other runs of this process on the same data.

    Raises:
      UserError: the run has latents alone, too few images, or no weights of the features.
    """
    known, config = {} if known is None else known, run.config
    features, path = config.features, config.evaluation.pretrained
    weights = fingerprint_of(path) if path else features.trained_with(config.evaluation)
    key = (run.data_fingerprint, config.data.num_classes, features.name, weights)
    if key not in known:
        network, split = check_reference(config), run.images
        network = network or _trained(run, split)
        try:
            several = run.mesh.devices.size > 1
            sharding = batch_sharding(run.mesh) if several else None
            classes = config.data.num_classes
            known[key] = prepare_reference(split, network, classes, sharding)
        except ValueError as error:
            raise UserError(f"This data set cannot be scored against: {error}") from error
    elif not features.needs_weights and not _file(run).exists():
        _store(run, known[key].network)
    return known[key]


def _file(run: Run) -> Path:
    return run.workdir / "evaluator" / run.config.features.file


def _trained(run: Run, split: Split) -> Features:
    """The feature network that was cached in the run's folder, or a new one."""
    features, evaluation, file = run.config.features, run.config.evaluation, _file(run)
    train, classes, started = split.train.arrays, run.config.data.num_classes, time.monotonic()
    if file.exists():
        found = features.load(file, train["images"].shape[1:])
        if found.trained_with in (None, features.trained_with(evaluation)):  # None: an old file
            return found
    try:
        found = features.train(train["images"], train["labels"], classes, evaluation)
    except ValueError as error:
        raise UserError(f"This data set cannot be scored against: {error}") from error
    log(
        f"feature network: held-out accuracy {100 * found.accuracy:.1f} %, trained in "
        f"{duration(time.monotonic() - started)}"
    )
    _store(run, found)  # also in place of one that was trained with other options
    return found


def _store(run: Run, network: Features) -> None:
    """Caches it in the run's folder, if that can be written."""
    if is_main_process():
        try:
            network.save(_file(run))
        except UserError as error:
            log(f"Nothing is stored in {run.workdir}, and scores are the same: {error}")
