"""`--dry_run`: what a config will build, before anything is paid for."""

import math

import jax
import numpy as np

from sphere_jax.common.files import in_bytes
from sphere_jax.config.checks import LATENT_SOURCES
from sphere_jax.config.options import Config
from sphere_jax.data.memory import available_bytes
from sphere_jax.data.sources import READ_WHERE_INDEXED, Source
from sphere_jax.distribution.mesh import check_batches, tree_shardings
from sphere_jax.methods.base import Generator
from sphere_jax.methods.latents import latent_bytes
from sphere_jax.runs.building import build_method, build_space, build_tokenizer
from sphere_jax.tokenizers import Pretrained
from sphere_jax.tokenizers.pretrained import pretrained_shapes
from sphere_jax.training.ema_snapshots import planned
from sphere_jax.training.flops import step_flops
from sphere_jax.training.loop import Task, abstract_state


def print_plan(config: Config, mesh) -> None:
    """Shapes, exact parameter counts, bytes per device, shardings and steps. Needs no data.

    Raises:
      UserError: as training would, for anything that the config alone gets wrong.
    """
    tokenizer = build_tokenizer(config)
    h, w, d = tokenizer.latent_shape
    if tokenizer.image_shape:
        print(f"images      {' x '.join(map(str, tokenizer.image_shape))}")
        if config.data.source not in (*READ_WHERE_INDEXED, *LATENT_SOURCES):
            print(f"memory      {_held(math.prod(tokenizer.image_shape))}")
    length = h * w * d
    print(f"latents     {h} x {w} x {d}  (sqrt(d) = {math.sqrt(d):.3f}, L = {length:,}, "
          f"sqrt(L) = {math.sqrt(length):.1f})")  # fmt: skip
    methods = [config.stage(name).method for name in config.stages]
    if methods != ["sphere_encoder"]:  # which has a sphere of its own
        print(f"space       {build_space(config, tokenizer.latent_shape)}")
    shape = ", ".join(f"{axis} {count}" for axis, count in mesh.shape.items())
    print(f"mesh        {shape}  ({mesh.devices.size} x {mesh.devices.flat[0].device_kind})")

    artifacts = {
        "statistics": dict.fromkeys(("mean", "std"), jax.ShapeDtypeStruct((d,), np.float32))
    }
    if isinstance(tokenizer, Pretrained):
        artifacts = pretrained_shapes(tokenizer)
        if config.data.source == "cache" and "decoder" not in methods:
            del artifacts["encoder"]
        for part, tree in artifacts.items():
            print(f"{part:<11} {_size(tree):,} parameters, frozen")
    for name in config.stages:
        artifacts |= _print_stage(config, mesh, name, artifacts)


def _print_stage(config: Config, mesh, name: str, artifacts: dict) -> dict:
    settings, method = config.stage(name), build_method(config, name)
    check_batches(mesh, name, settings)
    frozen = method.frozen(artifacts | method.load())
    task = Task(name, method, settings, Source({}), Source({}), frozen, config.seed)
    state = abstract_state(task, mesh)
    params = {part: state["params"][part] for part in method.trains}

    print(f"\n{name}  ({settings.method})")
    print(f"  steps       {settings.steps:,} x batch {settings.batch_size} "
          f"= {settings.steps * settings.batch_size:,} examples")  # fmt: skip
    for part, tree in params.items():
        print(f"  {part:<11} {_size(tree):,} parameters")
    if tables := sum(method.fixed_tables().values()):
        print(f"  {'':<11} {_size(params) + tables:,} with fixed position tables, as published")
    everything = {"state": state, "frozen": frozen}
    print(f"  bytes       {in_bytes(_bytes_per_device(mesh, state['params']))} parameters, "
          f"{in_bytes(_bytes_per_device(mesh, everything))} with EMA, moments and frozen parts, "
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
        print("  sharded     none (config.mesh.fsdp = 1): every device holds all parameters")
    flops = step_flops(method, state["params"], frozen, method.batch_shapes(), settings.batch_size)
    count, size = planned(settings, state["params"])
    if count:
        print(f"  snapshots   {count:,} of averages, {in_bytes(size)} on disk, all kept")
    print(f"  work        {flops:.3g} FLOP a step (matrix products, forward and backward)")
    if config.data.source not in LATENT_SOURCES and getattr(settings, "encode", "") == "once":
        print(f"  memory      {_held(latent_bytes(method.tokenizer))} (encode='once')")
    for note in method.notes():
        print(f"  note        {note}")
    if isinstance(method, Generator) and name == config.generator:
        print(f"  sampler     {method.sampler}: NFE {method.sampler.evaluations}")
    return params


def _held(each: int) -> str:
    """How many images, or their latents, memory holds: what `check_fits` asks of a data set."""
    free = available_bytes()
    room = f"; the {in_bytes(free)} available hold {free // each:,}" if free is not None else ""
    return f"{in_bytes(each)} an image, all of them held{room}"


def _size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes_per_device(mesh, tree) -> int:
    shardings = tree_shardings(mesh, tree)

    def one(leaf, sharding):
        itemsize = (
            4 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf.dtype.itemsize
        )
        return math.prod(sharding.shard_shape(leaf.shape)) * itemsize

    return sum(jax.tree.leaves(jax.tree.map(one, tree, shardings)))
