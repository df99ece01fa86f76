"""Weights from files that methods only name."""

import jax

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Config
from sphere_jax.runs.run import Run
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import WeightsFile, fingerprint_of, network_of


def load_files(files: dict | None) -> dict | None:
    """A tree of `WeightsFile` as parameters; None of none. Raises UserError."""
    return jax.tree.map(lambda file: file.load(), files, is_leaf=_is_file)


def check_given(files: dict | None) -> None:
    """Raises UserError for a file without a path."""
    for file in jax.tree.leaves(files, is_leaf=_is_file):
        file.check_given()


def shapes_of_files(files: dict) -> dict:
    """A tree of `WeightsFile` as parameters, or as their shapes where no path is given yet. Raises
    UserError."""
    return jax.tree.map(
        lambda file: file.load() if file.path else file.network.shapes, files, is_leaf=_is_file
    )


def check_pretrained(files: dict | None, config: Config) -> None:
    """Raises UserError unless initial parameters have the parameterization of `config.model`."""
    for file in jax.tree.leaves(files, is_leaf=_is_file):
        check_parameterization(file.path, config)


def override_weights(run: Run, path: str) -> None:
    """Replaces the weights of the generator by those of a file. Raises UserError."""
    method = run.generator
    if method is None or not method.network_parameters:
        raise UserError("--weights needs a run with a stage that generates latents.")
    check_parameterization(path, run.config)
    run.add_artifacts({method.network_parameters: method.network_file(path).load()})
    run.override = fingerprint_of(path)


def check_parameterization(path: str, config: Config) -> None:
    """Raises UserError if a published generator has another parameterization than the config's."""
    name, ours = network_of(path), config.model.parameterization
    entry = catalogue().get(name)
    if entry is not None and entry.parameterizations and ours not in entry.parameterizations:
        theirs = entry.parameterizations[0]
        raise UserError(
            f"{path} holds '{name}', which predicts another quantity: set "
            f"config.model.parameterization='{theirs}', not '{ours}'."
        )


def _is_file(node) -> bool:
    return isinstance(node, WeightsFile)
