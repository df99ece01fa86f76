"""The programs of a run, lowered for a mesh: the train step of each stage, sampler and scorer.

Nothing is allocated and no data are read: every argument is a shape with its sharding.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.config.option import leaves
from sphere_jax.config.options import Config
from sphere_jax.distribution.mesh import (
    batch_sharding,
    bytes_on_device,
    platform_of,
    replicated,
    shapes_on,
    split_batches,
)
from sphere_jax.evaluation.features.published import PublishedFeatures
from sphere_jax.nn.compilation import quick_products
from sphere_jax.runs.drawing import Drawer
from sphere_jax.runs.network_files import shapes_of_files
from sphere_jax.runs.run import Run
from sphere_jax.training.flops import step_flops, traced_flops
from sphere_jax.training.task import Task
from sphere_jax.weights.catalogue import catalogue


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """A traced program.

    name: "train flow", "sample", "score". examples: images of one run of it. flops: of its
    products, on all devices together. parts: bytes on one device by kind. steps: how often a whole
    run runs it; 0 if that is not fixed. bfloat16: whether its products are meant to be.
    micro_batches: of one run of it.
    """

    name: str
    traced: Any
    examples: int
    flops: float
    parts: dict[str, int]
    steps: int = 0
    bfloat16: bool = False
    micro_batches: int = 1


def programs_of(config: Config, mesh) -> Iterator[Rehearsed]:
    """Every program of a config, one at a time. Raises UserError as training would."""
    run = Run(config, Path(), mesh)
    found = dict(run.tokenizer.shapes())
    if not config.source.holds_images and all(m.on_latents for m in run.methods.values()):
        found = {k: v for k, v in found.items() if k not in run.tokenizer.encoder_parts}
    for name in run.methods:
        yield (step := _step(run, name, found))[0]
        found |= step[1]
    if run.generator is not None:
        yield _sampler(run, found)
        if run.generator.has_images and config.features.name in catalogue():
            yield _scorer(run)


def _step(run: Run, name: str, found: dict) -> tuple[Rehearsed, dict]:
    """The train step of a stage, and the shapes of its artifacts."""
    config, mesh, method = run.config, run.mesh, run.methods[name]
    options, zero = split_batches(mesh, name, config.stage(name)), config.mesh.zero
    frozen = shapes_on(mesh, method.frozen(found | shapes_of_files(method.files())), zero)
    task = Task(name, method, options, frozen, config.seed, mesh, zero)
    state, size, rows = task.abstract_state, options.batch_size, batch_sharding(mesh)
    batch = {
        key: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=rows)
        for key, (shape, dtype) in method.batch_shapes().items()
    }
    flops = step_flops(method, state["params"], frozen, method.batch_shapes(), size)
    parts = {part: bytes_on_device(state[part]) for part in state if part != "progress"}
    parts |= {"frozen": bytes_on_device(frozen), "batch": bytes_on_device(batch)}
    traced = task.train_step.trace(state, frozen, batch)
    groups = (config.model, config.tokenizer)
    bfloat16 = any(
        leaf.value == "bfloat16" for group in groups for _, leaf in leaves("config", group)
    )
    counts = (options.steps, bfloat16, options.accumulate)
    rehearsed = Rehearsed(f"train {name}", traced, size, flops, parts, *counts)
    return rehearsed, {p: state["params"][p] for p in method.trains} | method.artifact_shapes()


def _sampler(run: Run, found: dict) -> Rehearsed:
    """Drawing and decoding one batch."""
    mesh, zero = run.mesh, run.config.mesh.zero
    run.artifacts = shapes_on(mesh, found, zero)
    drawer = Drawer(run, run.config.seed)
    size = drawer.batch_size(run.config.sampler.batch_size)
    rows = batch_sharding(mesh)
    given = (
        jax.ShapeDtypeStruct((size,), np.uint32, sharding=rows),
        jax.ShapeDtypeStruct((size,), np.int32, sharding=rows),
    )
    traced = drawer.program(lambda _, images: images).trace(drawer.params, (), *given)
    flops = traced_flops(traced.jaxpr)
    parts = {"params": bytes_on_device(drawer.params)}
    bfloat16 = run.config.model.compute_dtype == "bfloat16"
    return Rehearsed("sample", traced, size, flops, parts, 0, bfloat16)


def _scorer(run: Run) -> Rehearsed:
    """Features of one batch of images."""
    mesh, kind = run.mesh, run.config.features
    network = catalogue()[kind.name].network(dtype=jnp.float32)
    features = PublishedFeatures(kind, "", None, network, network.shapes)
    params = shapes_on(mesh, network.shapes, False)
    size = 64 * mesh.size
    shape = (size, *run.tokenizer.image_shape)
    images = jax.ShapeDtypeStruct(shape, np.uint8, sharding=batch_sharding(mesh))

    def score(params, images):
        return features.compute(params, images, kind.outputs)

    program = jax.jit(
        score, out_shardings=replicated(mesh), compiler_options=quick_products(platform_of(mesh))
    )
    traced = program.trace(params, images)
    parts = {"params": bytes_on_device(params), "batch": bytes_on_device(images)}
    return Rehearsed("score", traced, size, traced_flops(traced.jaxpr), parts)
