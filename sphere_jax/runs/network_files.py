"""Weights that methods and tokenizers only name: in files, or in the folder of another run."""

from pathlib import Path

import jax

from sphere_jax.common.errors import UserError
from sphere_jax.data.pipeline import to_host
from sphere_jax.nn.functional import Params
from sphere_jax.tokenizers.base import Tokenizer, TokenizerOptions, joined
from sphere_jax.weights.stored import WeightsFile, is_run_folder
from sphere_jax.weights.tensors import named_leaves


def load_files(files: dict | None) -> dict | None:
    """A tree of `WeightsFile` as parameters; None of none. Raises UserError."""
    return jax.tree.map(load_file, files, is_leaf=is_file)


def check_given(files: dict | None) -> None:
    """Raises UserError for a file without a path."""
    for file in jax.tree.leaves(files, is_leaf=is_file):
        file.check_given()


def shapes_of_files(files: dict) -> dict:
    """A tree of `WeightsFile` as parameters, or as their shapes where no path is given yet. Raises
    UserError."""
    return jax.tree.map(
        lambda file: load_file(file) if file.path else file.network.shapes, files, is_leaf=is_file
    )


def load_file(file: WeightsFile) -> Params:
    """Its parameters, on the host. Raises UserError."""
    return _of_run(file) if is_run_folder(file.path) else file.load()


def load_tokenizer(tokenizer: Tokenizer, options: TokenizerOptions) -> Params:
    """The parameters of a tokenizer whose weights no stage trains, by parts. Raises UserError."""
    files = tokenizer.files(options)
    return joined(load_files(files)) if files else tokenizer.load(options)


def is_file(node) -> bool:
    return isinstance(node, WeightsFile)


def _of_run(file: WeightsFile) -> Params:
    from sphere_jax.runs.loading import load_run  # which loads files itself

    shapes = file.network.shapes
    parts = (file.part,) if file.part else tuple(shapes)
    run = load_run(Path(file.path), generators="network" in parts)
    missing = [part for part in parts if part not in run.artifacts]
    if missing:
        raise UserError(
            f"{file.path} is a run without {' and '.join(missing)}: it gives no such weights."
        )
    found = {part: run.artifacts[part] for part in parts}
    found = that_has(found[file.part] if file.part else found, shapes)
    theirs = {name: leaf.shape for name, leaf in named_leaves(found).items()}
    for name, leaf in named_leaves(shapes).items():
        if theirs.get(name) != leaf.shape:
            raise UserError(
                f"{file.path} is the run of another network: {name} is "
                f"{theirs.get(name, 'absent')} there, {leaf.shape} here."
            )
    return jax.tree.map(to_host, found)


def that_has(tree: Params, like: Params) -> Params:
    """The leaves of a tree that another one has too: a network may be frozen with fewer than it
    was trained with."""
    if not isinstance(like, dict):
        return tree
    return {key: that_has(tree[key], value) for key, value in like.items() if key in tree}
