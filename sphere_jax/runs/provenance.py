"""How weights were trained: written into exported files, and compared where weights are taken.

A network on latents is good for the latents, the path, the space and the parameterization that it
was trained with. Weights of another kind have the same shapes and give noise, so they are refused
unless `pretrained_anyway` says to start from them.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Config
from sphere_jax.data.pipeline import to_host
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.methods.base import Method
from sphere_jax.nn.functional import Networks, Params
from sphere_jax.runs.finished import load_stage
from sphere_jax.runs.loading import config_of_run, load_run
from sphere_jax.runs.network_files import is_file, load_file, load_files, load_tokenizer
from sphere_jax.runs.records import moves_weights, options_of
from sphere_jax.runs.run import Run
from sphere_jax.runs.system import System
from sphere_jax.tokenizers.base import PosteriorOptions
from sphere_jax.training.task import Task
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import (
    WeightsFile,
    fingerprint_of,
    is_run_folder,
    network_of,
    no_layouts,
    parts_of,
    trained_as,
)
from sphere_jax.weights.tensors import named_leaves

EXECUTION = ("compute_dtype", "remat", "unroll")  # options of how a network runs, not what it is
CLASSES = "config.data.num_classes"
HERE = "trained by this run"


def provenance(run: Run, name: str) -> dict[str, Any]:
    """How stage `name` of a run trains its weights, ready for JSON: the options that they are good
    for by their keys, and fingerprints of what encodes its latents."""
    config, method = run.config, run.methods[name]
    groups = [group for group in method.reads if group != "projection"]
    if not method.on_latents:
        groups.append("tokenizer")
    found = _options(config, groups)
    if "projection" in method.reads:
        found["projection"] = config.space.projection
    if method.on_latents:
        found |= {"latent shape": run.tokenizer.latent_shape, CLASSES: config.data.num_classes}
    if not method.trains_tokenizer:
        found |= latents_of(run)
    return json.loads(json.dumps(found))


def provenance_in(workdir: Path, name: str) -> dict[str, Any]:
    """That of a stage of a run that may not be finished. Raises UserError."""
    run = Run(config_of_run(workdir), workdir, make_mesh())
    if name not in run.config.stages:
        raise UserError(f"{workdir / 'config.json'} has no stage '{name}'.")
    run.load_tokenizer()
    for earlier in run.config.stages[: run.config.stages.index(name)]:
        record = run.records.read(earlier)
        if record and record["finished"] and not run.methods[earlier].on_latents:
            load_stage(run, earlier, record)
    return provenance(run, name)


def tokenizer_provenance(config: Config) -> dict[str, Any]:
    """That of a tokenizer as a whole, whatever generators make of its latents."""
    used = {f"config.tokenizer.{field.name}" for field in dataclasses.fields(PosteriorOptions)}
    found = _options(config, ["tokenizer"])
    used.discard("config.tokenizer.name")
    return json.loads(json.dumps({k: v for k, v in found.items() if k not in used}))


def latents_of(run: Run) -> dict[str, Any]:
    """What a run's latents are a function of, besides images: options of its tokenizer, and
    fingerprints of its weights without the decoder's."""
    config, tokenizer = run.config, run.tokenizer
    left_out = type(tokenizer).not_of_latents
    options = _options(config, ["tokenizer"])
    found = {k: v for k, v in options.items() if k.rpartition(".")[2] not in left_out}
    parts = [part for part in tokenizer.parts if part != "decoder"]
    loaded = {part: run.artifacts[part] for part in parts if part in run.artifacts}
    if (set(parts) - loaded.keys()) & tokenizer.shapes().keys():  # a run on cached latents
        loaded = load_tokenizer(tokenizer, config.tokenizer) | loaded
    for part in parts:
        found[f"weights of the tokenizer's {part}"] = (
            _fingerprint(loaded[part]) if part in loaded else HERE
        )
    return found


def check_pretrained(run: Run) -> None:
    """Raises UserError for weights to start from that were trained for something else: before the
    first stage trains, with a tokenizer from files loaded."""
    for name, method in run.methods.items():
        record = run.records.read(name)
        if run.config.stage(name).pretrained and not (record and record["finished"]):
            _check_stage(run, name, method)


def _check_stage(run: Run, name: str, method: Method) -> None:
    stage = run.config.stage(name)
    for file in jax.tree.leaves(method.pretrained(), is_leaf=is_file):
        check_parameterization(file.path, run.config)
    known = _known(stage.pretrained, method)
    if known and not stage.pretrained_anyway:
        used, expected = stage.steps == 0, provenance(run, name)  # used as they are
        anyway = f"config.{name}.pretrained_anyway=True trains on from it all the same"
        _compare(stage.pretrained, known, expected, "" if used else anyway, classes=used)


def check_tokenizer(config: Config) -> None:
    """Raises UserError if `config.tokenizer.pretrained` is another kind of tokenizer."""
    for key, leaf in options_of(config, ["tokenizer"]).items():
        if not (leaf.file and leaf.value) or key != "config.tokenizer.pretrained":
            continue
        if is_run_folder(leaf.value):
            known = tokenizer_provenance(config_of_run(Path(leaf.value)))
        else:
            known = trained_as(leaf.value)
        _compare(leaf.value, known, tokenizer_provenance(config), "")


def check_parameterization(path: str, config: Config) -> None:
    """Raises UserError if a published generator has another parameterization than the config's."""
    if is_run_folder(path):
        return
    name, ours = network_of(path), config.model.parameterization
    entry = catalogue().get(name)
    if entry is not None and entry.parameterizations and ours not in entry.parameterizations:
        theirs = entry.parameterizations[0]
        raise UserError(
            f"{path} holds '{name}', which predicts another quantity: set "
            f"config.model.parameterization='{theirs}', not '{ours}'."
        )


def initial_params(run: Run, task: Task) -> Params | None:
    """Parameters to start a stage from, perhaps not all of them: the others are drawn. None without
    `pretrained`. Raises UserError."""
    path, method = task.options.pretrained, task.method
    if not path:
        return None
    files = method.pretrained() or _files(path, task)
    theirs, ours = _known(path, method).get(CLASSES), run.config.data.num_classes
    if not method.on_latents or theirs in (None, ours):
        return load_files(files)
    config = run.config
    network = config.network.build(config.model, run.tokenizer.latent_shape, theirs)
    found = load_files(
        {part: dataclasses.replace(file, network=network) for part, file in files.items()}
    )
    shapes = task.abstract_state["params"]
    return {part: _that_fit(tree, shapes[part]) for part, tree in found.items()}


def override_weights(run: Run, path: str) -> None:
    """Replaces the weights of the generator by those of a file or of another run. Raises
    UserError."""
    method = run.generator
    if method is None or not method.network_parameters:
        raise UserError("--weights needs a run with a stage that generates latents.")
    check_parameterization(path, run.config)
    if known := _known(path, method):
        _compare(path, known, provenance(run, run.config.generator), "", classes=True)
    run.add_artifacts({method.network_parameters: load_file(method.network_file(path))})
    run.override = fingerprint_of(path)


def _options(config: Config, groups: list[str]) -> dict[str, Any]:
    return {
        key: leaf.value
        for key, leaf in options_of(config, sorted(groups)).items()
        if moves_weights(leaf) and key.rpartition(".")[2] not in EXECUTION
    }


def _fingerprint(params: Params) -> str:
    leaves = named_leaves(params)
    host = ((name, np.float32(_on_host(leaves[name]))) for name in sorted(leaves))
    return fingerprints.of_arrays(host)


def _on_host(leaf) -> np.ndarray:
    return to_host(leaf) if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _known(path: str, method: Method) -> dict[str, Any]:
    """How the weights were trained that `method` takes from a file or run; {} if nobody knows."""
    if not is_run_folder(path):
        return trained_as(path)
    run = load_run(Path(path), generators=False)
    stages = [n for n, m in run.methods.items() if set(m.trains) & set(method.trains)]
    if not stages:
        raise UserError(f"{path} is a run without {' and '.join(method.trains)}.")
    return provenance(run, stages[-1])


def _compare(path, known: dict, expected: dict, anyway: str, classes: bool = False) -> None:
    """Raises UserError for the first value in which they differ; names of plug-ins come first. A
    value that only one side knows is not compared."""
    keys = (known.keys() & expected.keys()) - (set() if classes else {CLASSES})
    for key in sorted(keys, key=lambda key: (not key.endswith(".name"), key)):
        if known[key] == expected[key]:
            continue
        fix = f"set that value, or give other weights{'; ' + anyway if anyway else ''}"
        if expected[key] == HERE:
            fix = "give the tokenizer of those latents by config.tokenizer.pretrained"
            fix += f"; {anyway}" if anyway else ""
        raise UserError(
            f"{path} was trained with {key}={known[key]!r}, not {expected[key]!r}: {fix}."
        )


def _files(path: str, task: Task) -> dict[str, WeightsFile]:
    """Those of the parameters that a stage trains and a file or run may have."""
    shapes = task.abstract_state["params"]
    if is_run_folder(path):
        system = System(config_of_run(Path(path)))
        held = {*system.tokenizer.parts, *(p for m in system.methods.values() for p in m.trains)}
    else:
        held = parts_of(path)
    taken = [part for part in task.method.trains if part in held]
    if not taken:
        raise UserError(f"{path} does not hold {' or '.join(task.method.trains)}.")
    return {
        part: WeightsFile(path, None, Networks(shapes[part]), no_layouts, part=part)
        for part in taken
    }


def _that_fit(tree: Params, shapes: Params) -> Params:
    """The leaves of a tree that have the expected shapes."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found[key] = _that_fit(value, shapes[key])
        elif value.shape == shapes[key].shape:
            found[key] = value
    return found
