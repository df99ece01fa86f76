"""A method small enough to train in a second: linear regression with noise drawn from the keys."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.config.options import StageOptions
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.methods.base import Method
from sphere_jax.training.loop import Feed, train
from sphere_jax.training.run_log import RunLog
from sphere_jax.training.task import Task


class Regression(Method):
    trains = ("line",)

    def init(self, key, frozen):
        kernel = jax.random.normal(key, (4, 3))
        return {"line": {"kernel": kernel, "bias": jnp.zeros((3,))}}

    def loss(self, params, frozen, batch, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        line = params["line"]
        out = batch["latents"] @ line["kernel"] + line["bias"][None]
        error = jnp.mean((out - noise) ** 2)
        return error, {"error": error}

    def preview(self, params, frozen, batch, key):
        return jnp.zeros((2, 8, 8, 1), jnp.uint8)


@pytest.fixture(scope="session")
def mesh():
    return make_mesh()


@pytest.fixture(scope="session")
def task(mesh):
    """`task(**options)`: a Task, always the same for the same options, so that all tests share its
    compiled programs."""
    method = Regression()

    @functools.cache
    def make(**options):
        defaults = dict(
            steps=8, batch_size=8, log_every=2, checkpoint_every=2, preview_every=4, ema_decay=0.9
        )
        return Task("toy", method, StageOptions(**defaults | options), {}, seed=0, mesh=mesh)

    return make


@pytest.fixture(scope="session")
def feed():
    """`feed(poisoned=[row, ...])`: 64 training examples, with NaN in those rows."""

    def make(poisoned=(), count=64):
        latents = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
        latents[list(poisoned)] = np.nan
        source = Source({"latents": latents, "labels": np.arange(count, dtype=np.int32)})
        clean = Source({"latents": np.ones((20, 4), np.float32), "labels": np.zeros(20, np.int32)})
        return Feed(source, clean)

    return make


@pytest.fixture(scope="session")
def run_in(feed):
    """`run_in(folder, task, feed=..., show=..., curve=...)`: trains; returns the average of the
    parameters as numpy."""

    default = feed()

    def run(folder, task, feed=default, show=lambda step, images: None, curve=None):
        log = RunLog(folder)
        try:
            params = train(task, feed, folder / "checkpoints", log, 1e9, show, curve)
        finally:
            log.close()
        return jax.tree.map(np.asarray, params)

    return run


@pytest.fixture
def start(run_in, tmp_path):
    """`start(task, name, ...)`: `run_in` the folder of that name."""
    return lambda task, name="run", **given: run_in(tmp_path / name, task, **given)


class Whole(NamedTuple):
    params: dict
    folder: Path
    shown: list


@pytest.fixture(scope="session")
def whole(run_in, task, tmp_path_factory):
    """An uninterrupted run of `task()`, made once for all tests."""
    shown, folder = [], tmp_path_factory.mktemp("whole")

    def show(step, images):
        shown.append((step, images.shape))

    return Whole(run_in(folder, task(), show=show), folder, shown)
