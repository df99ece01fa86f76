"""The programs of a run, lowered for a mesh: the train step of each stage, sampler and scorer.

Nothing is allocated and no data are read: every argument is a shape with its sharding.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.config.option import leaves
from sphere_jax.config.options import Config
from sphere_jax.data.cached_latents import NAMES
from sphere_jax.distribution.mesh import batch_sharding, bytes_on_device, shapes_on, split_batches
from sphere_jax.distribution.placement import plain_forms
from sphere_jax.evaluation.features.published import PublishedFeatures
from sphere_jax.methods.base import Method
from sphere_jax.rehearsal.recomputing import Recomputing, recomputing
from sphere_jax.runs.drawing import Drawer
from sphere_jax.runs.network_files import shapes_of_files
from sphere_jax.runs.run import Run
from sphere_jax.training.flops import step_flops, traced_flops
from sphere_jax.training.task import Task
from sphere_jax.weights.catalogue import catalogue

FLOAT16 = np.dtype(np.float16)  # latents of a cache, as `prepare latents` stores them


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """A traced program.

    name: "train flow", "sample", "score". examples: images of one run of it. flops: of its
    products, on all devices together. parts: bytes on one device by kind; what they have in
    BESIDE lies there too, and is not given to the program. bfloat16: whether its products are meant
    to be. steps: how often a whole run runs it; 0 if that is not fixed. micro_batches: of one run
    of it. recomputing: of a train step.
    """

    name: str
    traced: Any
    examples: int
    flops: float
    parts: dict[str, int]
    bfloat16: bool
    steps: int = 0
    micro_batches: int = 1
    recomputing: Recomputing = Recomputing("", "none", 0)


BESIDE = "train state"  # of the stage that generates, while training scores


def programs_of(config: Config, mesh) -> Iterator[Rehearsed]:
    """Every program of a config, one at a time. Raises UserError as training would."""
    run, beside = Run(config, Path(), mesh), 0
    found = dict(run.tokenizer.shapes())
    if not config.source.holds_images and all(m.on_latents for m in run.methods.values()):
        found = {k: v for k, v in found.items() if k not in run.tokenizer.encoder_parts}
    for name in run.methods:
        step = _step(run, name, found)
        yield step.rehearsed
        if name == config.generator and config.evaluation.every > 0:
            beside = step.beside
        found |= step.artifacts
    if run.generator is not None:
        run.artifacts = shapes_on(mesh, found, config.mesh.zero)
        yield _sampler(run, beside)
        if run.generator.has_images and config.features.weights in catalogue():
            yield _scorer(run, beside)


class _Step(NamedTuple):
    """beside: bytes of the train state on a device but for the weights that samples use."""

    rehearsed: Rehearsed
    artifacts: dict
    beside: int


def _step(run: Run, name: str, found: dict) -> _Step:
    """The train step of a stage, and the shapes of its artifacts."""
    config, mesh, method = run.config, run.mesh, run.methods[name]
    options, zero = split_batches(mesh, name, config.stage(name)), config.mesh.zero
    frozen = shapes_on(mesh, method.frozen(found | shapes_of_files(method.files())), zero)
    task = Task(name, method, options, frozen, config.seed, mesh, zero)
    state, size, rows = task.abstract_state, options.batch_size, batch_sharding(mesh)
    shapes = _examples(config, method)
    batch = {
        key: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=rows)
        for key, (shape, dtype) in shapes.items()
    }
    parts = {part: bytes_on_device(state[part]) for part in state if part != "progress"}
    beside = sum(parts.values()) - parts[task.weights_item]
    parts |= {"frozen": bytes_on_device(frozen), "batch": bytes_on_device(batch)}
    rehearsed = Rehearsed(
        name=f"train {name}",
        traced=task.train_step.trace(state, frozen, batch),
        examples=size,
        flops=step_flops(method, state["params"], frozen, shapes, size),
        parts=parts,
        bfloat16=_bfloat16(config),
        steps=options.steps,
        micro_batches=options.accumulate,
        recomputing=recomputing(config, name, state["params"], frozen, size // options.accumulate),
    )
    artifacts = {part: state["params"][part] for part in method.trains} | method.artifact_shapes()
    return _Step(rehearsed, artifacts, beside)


def _examples(config: Config, method: Method) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shapes and dtypes of an example: latents of a cache have 16 bits until a device has them."""
    found = method.batch_shapes()
    if config.source.made_of_images:
        found |= {name: (found[name][0], FLOAT16) for name in NAMES if name in found}
    return found


def _bfloat16(config: Config) -> bool:
    """Whether a config means products to be of bfloat16, in its networks or in some of them."""
    groups = (config.model, config.tokenizer)
    return any(leaf.value == "bfloat16" for group in groups for _, leaf in leaves("", group))


def _sampler(run: Run, beside: int) -> Rehearsed:
    """Drawing and decoding one batch."""
    return _drawn(run, "sample", lambda _, images: images, {}, beside, _bfloat16(run.config))


def _scorer(run: Run, beside: int) -> Rehearsed:
    """Drawing and decoding one batch, and its features: what `evaluate --workdir` runs."""
    kind = run.config.features
    network = catalogue()[kind.weights].network(dtype=jnp.float32, **kind.options)
    features = PublishedFeatures(kind, "", None, network, network.shapes)

    def score(params, images):
        images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        return images, features.compute(params, images, kind.outputs)

    given = shapes_on(run.mesh, network.shapes)
    return _drawn(run, "score", score, given, beside, False)  # features are of float32


def _drawn(
    run: Run, name: str, then: Callable, given: Any, beside: int, bfloat16: bool
) -> Rehearsed:
    """One batch of samples and `then(given, images)` of it."""
    drawer, rows = Drawer(run, run.config.seed), batch_sharding(run.mesh)
    size = drawer.batch_size(run.config.sampler.batch_size)
    batch = [jax.ShapeDtypeStruct((size,), dtype, sharding=rows) for dtype in (np.uint32, np.int32)]
    traced = drawer.program(then).trace(drawer.params, given, *batch)
    with plain_forms():
        counted = Drawer(run, run.config.seed).program(then).trace(drawer.params, given, *batch)
    parts = {"params": bytes_on_device((drawer.params, given)), BESIDE: beside}
    flops = traced_flops(counted.jaxpr)
    return Rehearsed(name, traced, size, flops, parts, bfloat16)
