"""Opening the folder of a finished run, or a bare data set, for sampling and scoring."""

import json
import os
from pathlib import Path
from typing import Any

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Config, DataOptions, EvaluationOptions
from sphere_jax.config.reading import read_config, read_group
from sphere_jax.data.array_checks import check_classes, check_images, check_labels
from sphere_jax.data.npz_files import read_npz
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.runs.finished import WEIGHTS, check_data, load_stages
from sphere_jax.runs.run import Run, open_run


def stored_config(workdir: str | os.PathLike) -> dict[str, Any]:
    """The config of a run folder, as stored. Raises UserError for another folder."""
    file = Path(workdir) / "config.json"
    if not file.is_file():
        raise UserError(
            f"{workdir} is not a run folder (no config.json); give the --workdir of a run."
        )
    try:
        return dict(json.loads(file.read_text())["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(workdir, error) from error


def config_of_run(workdir: Path) -> Config:
    """The config of a run folder, checked. Raises UserError."""
    return read_config(stored_config(workdir) | {"mesh": {}}, stored=True)


def unloaded_run(
    workdir: str | os.PathLike,
    sampler: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    mesh=None,
) -> Run:
    """The run of `workdir` without its weights (`runs.finished.load_stages`); its data are read on
    first use. Arguments as of `load_run`. Raises UserError for another folder."""
    workdir = Path(workdir)
    raw = stored_config(workdir)
    try:
        raw |= {"sampler": raw.get("sampler", {}) | (sampler or {}), "mesh": {}}
        raw |= {"evaluation": raw.get("evaluation", {}) | (evaluation or {})}
    except TypeError as error:
        raise _damaged(workdir, error) from error
    return Run(read_config(raw, stored=True), workdir, mesh or make_mesh())


def load_run(
    workdir: str | os.PathLike,
    sampler: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    data: bool = False,
    mesh=None,
    weights: str = "",
    generators: bool = True,
) -> Run:
    """The run of `workdir` with its trained artifacts on `mesh`, by default all devices here.

    `sampler` and `evaluation` replace values of these groups of the config. Its mesh is
    ignored: a run trained on 16 devices is sampled on the devices here. Its data set is read only
    if `data` is true. `weights` are used instead of the generator's own: a file or another run, or
    one of `finished.WEIGHTS`, those of this run that its options do not name. Without
    `generators`, stages on latents are left out: what remains is the tokenizer.

    Raises:
      UserError: not a run folder, not finished, or damaged; weights of another network.
    """
    run = unloaded_run(workdir, sampler, evaluation, mesh)
    if data:
        _ = run.split  # raises for data that are not there
    named = weights in WEIGHTS
    load_stages(run, generators, weights if named else "")
    if data:
        check_data(run)
    if weights and not named:
        from sphere_jax.runs.provenance import override_weights  # which loads runs itself

        override_weights(run, weights)
    return run


def bare_run(
    reference: str | os.PathLike, workdir: str | os.PathLike, evaluation: dict[str, Any]
) -> Run:
    """A run without stages around the data of FILE.npz (`images`, `labels`), to score against it
    with these values of the config's evaluation group.

    Raises UserError for a file that is not there, or holds something else.
    """
    both = ("images", "labels")
    arrays = read_npz(reference, both, wanted=both)
    images = check_images(arrays["images"], reference)
    labels = check_labels(arrays["labels"], len(images), reference)
    check_classes(labels, reference)
    data = DataOptions(
        source="npz",
        path=os.fspath(reference),
        image_size=images.shape[1],
        channels=images.shape[-1],
        num_classes=int(labels.max()) + 1,
    )
    scoring = read_group(EvaluationOptions, evaluation, "config.evaluation")
    config = Config(stages=(), groups={}, data=data, evaluation=scoring)
    return open_run(config, workdir, make_mesh())


def _damaged(workdir: str | os.PathLike, error: Exception) -> UserError:
    return UserError(
        f"{Path(workdir) / 'config.json'} is damaged ({error}); run sphere_jax.main again."
    )
