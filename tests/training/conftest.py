"""A method small enough to train in a second: linear regression with noise drawn from the keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.config.options import FlowStage
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.methods.base import Method
from sphere_jax.training.loop import Task


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


@pytest.fixture
def task():
    """`task(poisoned=[row, ...], **settings)`: a Task whose data hold NaN in those rows."""

    def make(poisoned=(), count=64, **settings):
        latents = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
        latents[list(poisoned)] = np.nan
        source = Source({"latents": latents, "labels": np.arange(count, dtype=np.int32)})
        clean = Source({"latents": np.ones((20, 4), np.float32), "labels": np.zeros(20, np.int32)})
        defaults = dict(
            steps=8, batch_size=8, log_every=2, checkpoint_every=2, preview_every=4, ema_decay=0.9
        )
        return Task(
            "toy", Regression(), FlowStage(**defaults | settings), source, clean, {}, seed=0
        )

    return make
