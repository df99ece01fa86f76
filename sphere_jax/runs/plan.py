"""`--dry_run`: what a config will build, without training it."""

import math
from collections.abc import Mapping
from pathlib import Path

import jax

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import in_bytes
from sphere_jax.config.options import Config
from sphere_jax.data.class_names import classes_of
from sphere_jax.data.memory import available_bytes
from sphere_jax.distribution.mesh import bytes_on_device, shapes_on, split_batches
from sphere_jax.methods.base import Method, space_of
from sphere_jax.runs.network_files import shapes_of_files
from sphere_jax.runs.stages import check_batch
from sphere_jax.runs.system import System
from sphere_jax.training.ema_snapshots import snapshot_totals
from sphere_jax.training.flops import step_flops
from sphere_jax.training.optimizers import muon_labels
from sphere_jax.training.task import Task


def print_plan(config: Config, mesh) -> None:
    """Data, shapes, exact parameter counts, bytes per device, shardings and steps. Data need not be
    there.

    Raises:
      UserError: as training would, for errors in the config, and, last, for data that are there and
        do not fit it.
    """
    wrong = None
    try:
        _print_data(config, mesh)
    except UserError as error:
        wrong = error
    system = System(config)
    tokenizer, methods = system.tokenizer, system.methods
    h, w, d = tokenizer.latent_shape
    if tokenizer.image_shape:
        print(f"images      {' x '.join(map(str, tokenizer.image_shape))}")
        if config.source.holds_images and not config.source.read_in_batches:
            print(f"memory      {_memory_line(math.prod(tokenizer.image_shape))}")
    length = h * w * d
    print(f"latents     {h} x {w} x {d}  (sqrt(d) = {math.sqrt(d):.3f}, L = {length:,}, "
          f"sqrt(L) = {math.sqrt(length):.1f})")  # fmt: skip
    if any(method.reads for method in methods.values()):  # other methods define their sphere
        print(f"space       {space_of(config, tokenizer.latent_shape)}")
    shape = ", ".join(f"{axis} {count}" for axis, count in mesh.shape.items())
    print(f"mesh        {shape}  ({mesh.devices.size} x {mesh.devices.flat[0].device_kind})")

    artifacts = tokenizer.shapes()
    if not config.source.holds_images and all(method.on_latents for method in methods.values()):
        artifacts = {k: v for k, v in artifacts.items() if k not in tokenizer.encoder_parts}
    for part, tree in artifacts.items():
        print(f"{part:<11} {_size(tree):,} parameters, frozen")
    for name, method in methods.items():
        artifacts |= _print_stage(config, mesh, name, method, artifacts)
    if wrong:
        raise wrong


def _print_data(config: Config, mesh) -> None:
    """Examples and classes, from folders and headers. Raises UserError for data that do not fit."""
    data, source = config.data, config.source
    here = data.path != "" and Path(data.path).exists()
    if data.path and not here and not source.path_may_be_a_name:
        print(f"data        {data.path} is not here, not looked at")
        return
    try:
        counts, classes = source.counts(config), classes_of(data)
    except UserError as error:
        if here:
            raise
        print(f"data        not looked at: {error}")
        return
    held = "every fifth of a class" if counts.heldout is None else f"{counts.heldout:,}"
    kind = "images" if source.holds_images else "latents"
    print(
        f"data        {counts.train:,} training {kind}, {held} held out; classes: {classes.count:,}"
    )
    for line in classes.lines():
        print(f"            {line}")
    for name in config.stages:
        check_batch(config, mesh, name, counts.train)


def _print_stage(config: Config, mesh, name: str, method: Method, artifacts: Mapping) -> dict:
    """The plan of one stage; returns the shapes of its artifacts."""
    options = split_batches(mesh, name, config.stage(name))
    frozen = method.frozen(artifacts | shapes_of_files(method.files()))
    task = Task(name, method, options, frozen, config.seed, mesh, config.mesh.zero)
    state = task.abstract_state
    params = {part: state["params"][part] for part in method.trains}

    print(f"\n{name}  ({options.method})")
    print(f"  steps       {options.steps:,} x batch {options.batch_size} "
          f"= {options.steps * options.batch_size:,} examples")  # fmt: skip
    if options.accumulate > 1:
        each = options.batch_size // options.accumulate // mesh.devices.size
        print(f"  micro       {options.accumulate} batches a step, {each} examples a device")
    for part, tree in params.items():
        print(f"  {part:<11} {_size(tree):,} parameters")
    if tables := sum(method.fixed_tables().values()):
        print(f"  {'':<11} {_size(params) + tables:,} with fixed position tables, as published")
    everything = {"state": state, "frozen": shapes_on(mesh, frozen, task.zero)}
    print(f"  bytes       {in_bytes(bytes_on_device(state['params']))} parameters, "
          f"{in_bytes(bytes_on_device(everything))} with EMA, moments and frozen parts, "
          "per device")  # fmt: skip
    split = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state["params"])
        if any(leaf.sharding.spec)
    ]
    if split:
        path, leaf = max(split, key=lambda item: item[1].size)
        print(f"  sharded     {len(split)} arrays, say {path} {leaf.shape} as {leaf.sharding.spec}")
    else:
        print("  sharded     none: every device holds all parameters")
    if options.optimizer.matrices == "muon":
        print(f"  muon        {_muon_line(state['params'])}")
    flops = step_flops(method, state["params"], frozen, method.batch_shapes(), options.batch_size)
    count, size = snapshot_totals(options, state["params"])
    if count:
        print(f"  snapshots   {count:,} of averages, {in_bytes(size)} on disk, none deleted")
    print(f"  work        {flops:.3g} FLOP a step (matrix products, forward and backward)")
    if config.source.holds_images and (each := method.memory_of_example()):
        print(f"  memory      {_memory_line(each)} (encode='once')")
    for note in method.notes():
        print(f"  note        {note}")
    if name == config.generator:
        known = method.sampler.evaluations
        print(f"  sampler     {method.sampler}: NFE {'adaptive' if known is None else known}")
    return params | method.artifact_shapes()


def _muon_line(params) -> str:
    """What Muon updates, and what AdamW does."""
    labels = jax.tree.leaves(muon_labels(params))
    arrays = list(zip(jax.tree_util.tree_leaves_with_path(params), labels, strict=True))
    matrices = [leaf for (_, leaf), label in arrays if label == "muon"]
    others = [(path, leaf) for (path, leaf), label in arrays if label == "adamw"]
    kinds = sorted({path[-1].key for path, _ in others})
    return (
        f"{len(matrices)} kernels of linear layers with {_size(matrices):,} parameters; AdamW "
        f"{len(others)} arrays ({', '.join(kinds)}) with {_size([leaf for _, leaf in others]):,}"
    )


def _memory_line(each: int) -> str:
    """Memory of one image or its latents, and how many fit: what `check_fits` checks."""
    free = available_bytes()
    room = f"; the {in_bytes(free)} available hold {free // each:,}" if free is not None else ""
    return f"{in_bytes(each)} an image, all in memory{room}"


def _size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
