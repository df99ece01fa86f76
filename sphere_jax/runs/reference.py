"""What the samples of a run are scored against: images, and the network whose features compare."""

import time
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import duration, log
from sphere_jax.config.options import Config
from sphere_jax.data.source import Split
from sphere_jax.evaluation.classifier import Classifier, train_classifier
from sphere_jax.evaluation.features import PublishedFeatures
from sphere_jax.evaluation.score import Reference, prepare_reference
from sphere_jax.runs.image_data import image_data
from sphere_jax.runs.run import Run
from sphere_jax.weights.stored import fingerprint_of


def check_reference(config: Config) -> PublishedFeatures | None:
    """Raises UserError, before anything trains, where images or published weights are missing."""
    image_data(config)
    return _published_features(config)


def check_enough(config: Config, split: Split) -> None:
    """Raises UserError, before anything trains, for data that nothing can be scored against."""
    evaluation, classes = config.evaluation, config.data.num_classes
    if evaluation.features == "small_classifier" and classes < 2:
        raise UserError(
            "config.evaluation.features='small_classifier' learns to tell classes apart, and "
            f"config.data.num_classes={classes}; give published features, or evaluation.samples=0."
        )
    if len(split.heldout) <= evaluation.neighbours:
        raise UserError(
            f"{len(split.heldout)} held-out images are too few to score against; "
            f"config.evaluation.neighbours={evaluation.neighbours} needs one more than that."
        )


def reference_of(run: Run, known: dict | None = None) -> Reference:
    """The feature network and the judge for a run's data.

    The small classifier is trained once and kept in the run's folder; published features come from
    a file. `known` keeps references for other runs of this process on the same data.

    Raises:
      UserError: the run has latents alone, too few images, or no weights of the features.
    """
    known, config = {} if known is None else known, run.config
    name, pretrained = config.evaluation.features, config.evaluation.pretrained
    weights = fingerprint_of(pretrained) if pretrained else config.evaluation.classifier_steps
    key = (run.data_fingerprint, config.data.num_classes, name, weights)
    if key not in known:
        published, split = check_reference(config), run.images
        features = published or _classifier(run, split)
        try:
            known[key] = prepare_reference(split, features, config.data.num_classes)
        except ValueError as error:
            raise UserError(f"This data set cannot be scored against: {error}") from error
    if isinstance(known[key].network, Classifier):
        _keep(run, known[key].network)
    return known[key]


def _published_features(config: Config) -> PublishedFeatures | None:
    name, path, data = config.evaluation.features, config.evaluation.pretrained, config.data
    if name == "small_classifier":
        return None
    if not path:
        raise UserError(
            f"config.evaluation.pretrained is empty; give it the weights of '{name}': what "
            f"python -m sphere_jax.convert --network {name} --out F.safetensors writes."
        )
    return PublishedFeatures.load(name, path, (data.image_size, data.image_size, data.channels))


def _file(run: Run) -> Path:
    return run.workdir / "evaluator" / "classifier.safetensors"


def _classifier(run: Run, split: Split) -> Classifier:
    train, classes = split.train.arrays, run.config.data.num_classes
    started, steps = time.monotonic(), run.config.evaluation.classifier_steps
    if _file(run).exists():
        try:
            found = Classifier.load(_file(run))
        except ValueError as error:
            raise UserError(f"{error} Delete it to train it again.") from error
        if found.steps in (None, steps):  # None: kept before it said so
            return found
        if is_main_process():
            _file(run).unlink()  # of other steps: the new one is kept in its place
    try:
        found = train_classifier(train["images"], train["labels"], classes, steps=steps)
    except ValueError as error:
        raise UserError(f"This data set cannot be scored against: {error}") from error
    log(
        f"feature network: {100 * found.accuracy:.1f}% of images set aside, trained in "
        f"{duration(time.monotonic() - started)}"
    )
    return found


def _keep(run: Run, classifier: Classifier) -> None:
    if is_main_process() and not _file(run).exists():
        _file(run).parent.mkdir(exist_ok=True)
        classifier.save(_file(run))
