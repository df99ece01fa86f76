"""Numbers of `benchmarks.accelerator`: geometry against float64, bfloat16 against float32.

Methods are found by import, each in the shipped config of the smallest images that has a stage of
it, with random weights: what is compared is arithmetic, not training.
"""

import argparse
import contextlib
import dataclasses
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator_images import random_tree
from benchmarks.timed import reason
from sphere_jax.common import plugins
from sphere_jax.common.cores import usable_cores
from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import load_config, shipped
from sphere_jax.config.options import Config
from sphere_jax.geometry.spaces import GlobalSphere, TokenSphere
from sphere_jax.methods.base import Batch, Method

SPACES = {  # and the shape of a latent
    "A: 32 channels, R = sqrt(32)": (TokenSphere(math.sqrt(32)), (8, 8, 32)),
    "RJF: 768 channels, R = 1": (TokenSphere(1.0), (4, 4, 768)),
    "D: 1024 channels, R = 32": (TokenSphere(32.0), (4, 4, 1024)),
    "B, C, E: global": (GlobalSphere(), (16, 16, 8)),
}
EPS = float(np.finfo(np.float32).eps)
WORST = 64 * EPS  # of the radius, of a float32 result
BATCH = 16


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--vectors", type=int, default=512, help="samples of each space")
    flags.add_argument("--most_methods", type=int, default=99, help="so many methods only")


# --- geometry ------------------------------------------------------------------------------------


def geometry(args: argparse.Namespace, deadline: float, found: dict[str, Any]) -> None:
    """Largest errors of each space's functions, over the radius; exact: all of rounding's size."""
    rng = np.random.default_rng(args.seed)
    spaces = found["largest_relative_errors"] = {}
    places = {"here": jax.devices()[0]}
    with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS may name the GPU alone
        places["host"] = jax.devices("cpu")[0]
    for title, (space, shape) in SPACES.items():
        z0, z1, v = rng.standard_normal((3, args.vectors, *shape), np.float32)
        t = rng.random(args.vectors, np.float32)
        exact = _exact(space, *(x.astype(np.float64) for x in (z0, z1, v, t)))
        errors = {where: {} for where in places}
        for where, device in places.items():
            with jax.default_matmul_precision("bfloat16"):  # the roughest setting
                results = _run(space, *(jax.device_put(x, device) for x in (z0, z1, v, t)))
            for name, value in results.items():
                size = np.abs(exact[name]).max()
                apart = np.abs(np.asarray(value, np.float64) - exact[name]).max()
                errors[where][name] = float(apart / size)
        spaces[title] = errors
        worst = max(errors["here"].values())
        shown = ", ".join(f"{name} {error / EPS:.1f}" for name, error in errors["here"].items())
        print(
            f"  {title}: {shown} (of 2^-23); exact: {'yes' if worst < WORST else 'NO'}", flush=True
        )
    worst = max(max(errors["here"].values()) for errors in spaces.values())
    found["exact"] = worst < WORST


def _run(space: Any, z0, z1, v, t) -> dict[str, jax.Array]:
    def functions(z0, z1, v, t):
        a, b = space.project(z0), space.prior(z1)
        z_t, u_t = space.interpolate(a, b, t)
        found = {"project": a, "z_t": z_t, "u_t": u_t, "angles": space.angles(a, b)}
        found |= {"step": space.step(a, v, t), "tangent": space.tangent(a, v)}
        return found | {"transport": space.transport(a, b, v)}

    return jax.jit(functions)(z0, z1, v, t)


def _exact(space: Any, z0, z1, v, t) -> dict[str, np.ndarray]:
    """The same by textbook formulas in float64."""
    shape, t = z0.shape, t[:, None, None]
    count = 1 if isinstance(space, GlobalSphere) else shape[1] * shape[2]
    z0, z1, v = (x.reshape(len(x), count, -1) for x in (z0, z1, v))
    radius = math.sqrt(z0.shape[-1]) if count == 1 else space.radius
    u, w = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (z0, z1))
    angle = np.arccos(np.sum(u * w, -1, keepdims=True))  # random pairs are far from its ends
    tangent = v - np.sum(u * v, -1, keepdims=True) * u
    speed = np.linalg.norm(tangent, axis=-1, keepdims=True) / radius
    axis = (w - np.cos(angle) * u) / np.sin(angle)  # of the great circle from u to w
    along = np.sum(axis * tangent, -1, keepdims=True)
    turned = tangent + along * ((np.cos(angle) - 1) * axis - np.sin(angle) * u)
    arc = t * speed
    found = {
        "project": radius * u,
        "z_t": radius * (np.sin((1 - t) * angle) * u + np.sin(t * angle) * w) / np.sin(angle),
        "u_t": radius * angle * (np.cos(t * angle) * w - np.cos((1 - t) * angle) * u)
        / np.sin(angle),
        "step": radius * np.cos(arc) * u + np.sin(arc) * tangent / speed,
        "tangent": tangent,
        "transport": turned,
    }  # fmt: skip
    return {name: x.reshape(shape) for name, x in found.items()} | {"angles": angle[..., 0]}


# --- losses --------------------------------------------------------------------------------------


def methods(args: argparse.Namespace, deadline: float, found: dict[str, Any]) -> None:
    """Of every method: loss and gradient on one batch in bfloat16 against float32.

    Programs of several methods are compiled at once: that is nearly all of the time.
    """
    configs, names = shipped_configs(), plugins.known("methods", "METHOD")[: args.most_methods]

    def compare(name: str) -> dict[str, Any] | str:
        places = [(c, file, stage) for file, c in configs for stage in c.stages
                  if c.stage(stage).method == name]  # fmt: skip
        if not places:
            return "no shipped config has a stage of it"
        if time.monotonic() > deadline:
            return "not run: the time was over"
        try:
            return _both(*places[0], args)
        except Exception as error:  # the others are worth having
            return f"failed: {reason(error)}"

    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        for name, result in zip(names, pool.map(compare, names), strict=True):
            found[name] = result
            print(f"  {name}: {_shown(result)}", flush=True)


def _shown(found: dict | str) -> str:
    if isinstance(found, str):
        return found
    return (
        f"loss {found['float32']:.6g} and {found['bfloat16']:.6g}, "
        f"{found['relative_difference']:.1e} apart; gradients: cosine {found['cosine']:.5f}, "
        f"norm {found['norm_ratio']:.4f} times ({found['where']}; {found['by']})"
    )


def shipped_configs() -> list[tuple[str, Config]]:
    """Those that are shipped, the smallest images and networks first."""
    found = []
    for file in sorted(shipped("configs").glob("*.py")):
        config = load_config(file)
        found.append((file.stem, config))
    return sorted(found, key=lambda pair: (pair[1].data.image_size, pair[1].model.width))


def _both(config: Config, file: str, stage: str, args: argparse.Namespace) -> dict[str, Any]:
    with jax.default_matmul_precision("highest"):
        full, slope = _loss(_with_dtype(config, "float32"), stage, args)
        low, rough = _loss(_with_dtype(config, "bfloat16"), stage, args)
    by = "compute_dtype"
    if low == full:  # no network of the stage has such an option
        with jax.default_matmul_precision("bfloat16"):
            low, rough = _loss(config, stage, args)
        by = "no compute_dtype: products rounded"
    a, b = (
        np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(grads)])
        for grads in (slope, rough)
    )
    return {
        "float32": full,
        "bfloat16": low,
        "relative_difference": abs(low / full - 1),
        "cosine": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
        "norm_ratio": float(np.linalg.norm(b) / np.linalg.norm(a)),
        "where": f"{file}, {stage}",
        "by": by,
    }


def _with_dtype(config: Config, dtype: str) -> Config:
    def changed(group):
        known = {field.name for field in dataclasses.fields(group)}
        new = {"compute_dtype": dtype, "unroll": False}
        return dataclasses.replace(group, **{k: v for k, v in new.items() if k in known})

    return dataclasses.replace(
        config, model=changed(config.model), tokenizer=changed(config.tokenizer)
    )


def _loss(config: Config, stage: str, args: argparse.Namespace) -> tuple[float, Any]:
    """Loss and gradients of one batch of noise."""
    method, frozen, params = parts_of(config, stage)
    size = args.batch or BATCH
    batch = random_batch(method, config, size, args.seed)
    schedule = method.schedule(jnp.int32(0))
    frozen = frozen | ({"schedule": schedule} if schedule else {})
    keys = method.keys(jax.random.key(args.seed), size)
    (loss, _), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(
        params, frozen, batch, keys
    )
    return float(loss), jax.device_get(grads)


def random_batch(method: Method, config: Config, size: int, seed: int) -> Batch:
    """What a method trains on, of random numbers."""
    rng, batch = np.random.default_rng(seed), {}
    for name, (shape, dtype) in method.batch_shapes().items():
        if name == "labels":
            batch[name] = rng.integers(0, max(1, config.data.num_classes), size).astype(dtype)
        elif np.issubdtype(dtype, np.integer):
            batch[name] = rng.integers(0, 256, (size, *shape)).astype(dtype)
        else:
            batch[name] = np.abs(rng.standard_normal((size, *shape))).astype(dtype)
    return batch


def parts_of(config: Config, stage: str) -> tuple[Method, dict, dict]:
    """The method of a stage, with numbers for its frozen and its own parameters."""
    tokenizer = config.tokenizer_class.build(config.data, config.tokenizer)
    found = dict(tokenizer.shapes())
    for name in config.stages:
        method = config.method(name).build(config, name, tokenizer)
        files = jax.tree.map(
            lambda file: file.network.shapes,
            method.files(),
            is_leaf=lambda node: hasattr(node, "network"),
        )
        frozen = method.frozen(found | files)
        params = jax.eval_shape(method.init, jax.random.key(0), frozen)
        if name == stage:
            return method, random_tree(frozen), random_tree(params, 1)
        found |= {part: params[part] for part in method.trains} | method.artifact_shapes()
    raise UserError(f"config.stages has no '{stage}'.")
