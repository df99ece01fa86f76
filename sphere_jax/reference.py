"""What the samples of a run are scored against: images, and the network whose features compare."""

import time
from pathlib import Path

from sphere_jax.conversion.weights import fingerprint_of
from sphere_jax.data.sources import Split
from sphere_jax.distribution.start import is_main_process
from sphere_jax.errors import UserError
from sphere_jax.evaluation.classifier import Classifier, train_classifier
from sphere_jax.evaluation.features import PublishedFeatures
from sphere_jax.evaluation.score import Reference, prepare_reference
from sphere_jax.experiment import Run
from sphere_jax.images import image_data
from sphere_jax.options import Config
from sphere_jax.progress import duration, say


def check_reference(config: Config) -> PublishedFeatures | None:
    """Raises UserError, before anything trains, where images or published weights are missing."""
    image_data(config)
    return _published_features(config)


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
    if _file(run).exists():
        try:
            return Classifier.load(_file(run))
        except ValueError as error:
            raise UserError(f"{error} Delete it to train it again.") from error
    started, steps = time.monotonic(), run.config.evaluation.classifier_steps
    try:
        found = train_classifier(train["images"], train["labels"], classes, steps=steps)
    except ValueError as error:
        raise UserError(f"This data set cannot be scored against: {error}") from error
    say(
        f"feature network: {100 * found.accuracy:.1f}% of images set aside, trained in "
        f"{duration(time.monotonic() - started)}"
    )
    return found


def _keep(run: Run, classifier: Classifier) -> None:
    if is_main_process() and not _file(run).exists():
        _file(run).parent.mkdir(exist_ok=True)
        classifier.save(_file(run))
