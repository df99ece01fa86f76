"""`--dry_run`: what a config will build, before anything is paid for."""

import math

import jax
import numpy as np

from sphere_jax.config import Config
from sphere_jax.data.sources import Source
from sphere_jax.distribution.mesh import check_batch, tree_shardings
from sphere_jax.experiment import build_method, build_space, build_tokenizer
from sphere_jax.methods.flow import Flow
from sphere_jax.sampling import nfe
from sphere_jax.tokenizers.precomputed import Precomputed
from sphere_jax.training.flops import matmul_flops
from sphere_jax.training.loop import Task, abstract_state


def print_plan(config: Config, mesh) -> None:
    """Shapes, exact parameter counts, bytes per device, shardings and steps. Needs no data.

    Raises:
      UserError: as training would, for anything that the config alone gets wrong.
    """
    tokenizer = build_tokenizer(config)
    h, w, d = tokenizer.latent_shape
    size = config.data.image_size
    if not isinstance(tokenizer, Precomputed):
        print(f"images      {size} x {size} x {config.data.channels}")
    print(f"latents     {h} x {w} x {d}  (sqrt(d) = {math.sqrt(d):.3f})")
    print(f"space       {build_space(config, tokenizer.latent_shape)}")
    shape = ", ".join(f"{axis} {count}" for axis, count in mesh.shape.items())
    print(f"mesh        {shape}  ({mesh.devices.size} x {mesh.devices.flat[0].device_kind})")

    artifacts = {
        "statistics": dict.fromkeys(("mean", "std"), jax.ShapeDtypeStruct((d,), np.float32))
    }
    for name in config.stages:
        artifacts |= _print_stage(config, mesh, name, artifacts)


def _print_stage(config: Config, mesh, name: str, artifacts: dict) -> dict:
    settings, method = config.stage(name), build_method(config, name)
    check_batch(mesh, f"config.{name}.batch_size", settings.batch_size // settings.accumulate)
    frozen = method.frozen(artifacts)
    task = Task(name, method, settings, Source({}), Source({}), frozen, config.seed)
    state = abstract_state(task, mesh)
    params = {part: state["params"][part] for part in method.trains}

    print(f"\n{name}  ({settings.method})")
    print(f"  steps       {settings.steps:,} x batch {settings.batch_size} "
          f"= {settings.steps * settings.batch_size:,} examples")  # fmt: skip
    for part, tree in params.items():
        print(f"  {part:<11} {_size(tree):,} parameters")
    if isinstance(method, Flow):
        tables = method.network.module.fixed_table_size
        print(f"  {'':<11} {_size(params) + tables:,} with the fixed position table, as published")
    everything = {"state": state, "frozen": frozen}
    print(f"  bytes       {_human(_bytes_per_device(mesh, state['params']))} parameters, "
          f"{_human(_bytes_per_device(mesh, everything))} with EMA, moments and frozen parts, "
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
    print(f"  work        {_training_flops(config, method, state, frozen, settings):.3g} "
          "FLOP a step (matrix products, three times the forward pass)")  # fmt: skip
    if isinstance(method, Flow):
        s = method.sampler
        print(f"  sampler     {s.solver}, {s.steps} steps, guidance {s.guidance.scale:g}: "
              f"NFE {nfe(s)}")  # fmt: skip
    return params


def _training_flops(config, method, state, frozen, settings) -> float:
    size, shape = settings.batch_size, config.data
    batch = {"labels": jax.ShapeDtypeStruct((size,), np.int32)}
    if isinstance(method, Flow):
        latents = (size, *method.tokenizer.latent_shape)
        batch["latents"] = jax.ShapeDtypeStruct(latents, np.float32)
    else:
        images = (size, shape.image_size, shape.image_size, shape.channels)
        batch["images"] = jax.ShapeDtypeStruct(images, np.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    return 3 * matmul_flops(lambda *a: method.loss(*a)[0], state["params"], frozen, batch, keys)


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


def _human(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
