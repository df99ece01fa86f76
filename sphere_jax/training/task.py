"""A stage without its data: method, optimizer, train state and compiled programs, on one mesh."""

import dataclasses
import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from sphere_jax.config.options import StageOptions
from sphere_jax.distribution.mesh import platform_of, put_global, replicated, shapes_on
from sphere_jax.distribution.placement import placed
from sphere_jax.nn.compilation import quick_products, run_once_options
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import State, init_state, make_train_step


def stage_key(seed: int, name: str) -> Key[Array, ""]:
    """The random key of a stage: the stages of a run draw different numbers."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _of_the_same(tree, like):
    """The part of a tree whose leaves another one has."""
    if not isinstance(like, dict):
        return tree
    return {key: _of_the_same(tree[key], value) for key, value in like.items()}


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train, and how.

    name: of the stage, as in `config.NAME`.
    method: a `methods.base.Method`; only its functions of arrays are called here.
    options: the stage's steps, batch size, optimizer, intervals.
    frozen: parameters and statistics of earlier stages: sharded arrays, or for everything but
      `initial_state` and training their shapes (`jax.ShapeDtypeStruct`).
    seed: of the run.
    zero: the train state is sharded over the `data` axis of the mesh, too.

    What is derived is computed on first use and cached. Two trainings of one Task share their
    compiled programs.
    """

    name: str
    method: Any
    options: StageOptions
    frozen: dict
    seed: int
    mesh: Mesh
    zero: bool = True

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        options, method = self.options, self.method
        return make_optimizer(options.optimizer, options.steps, method.rates, method.starts)

    @cached_property
    def abstract_state(self) -> State:
        """The train state's shapes, dtypes and shardings; nothing is allocated."""
        shapes = self._init.eval_shape(stage_key(self.seed, self.name), self.frozen, None)
        return shapes_on(self.mesh, shapes, self.zero)

    @property
    def state_shardings(self) -> State:
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)

    @property
    def weights_item(self) -> str:
        """The item of the train state that later stages and samples use."""
        return {"ema": "ema", "raw": "params"}[self.options.weights]

    def initial_state(self, params: dict | None = None) -> State:
        """The state before the first step, created on its shardings.

        `params`: host arrays, or stored tensors that are read shard by shard, instead of random
        parameters, or of some of them.
        """
        if params is not None:
            shardings = _of_the_same(self.state_shardings["params"], params)
            params = put_global(self.mesh, params, shardings)
        return self._compiled_init(stage_key(self.seed, self.name), self.frozen, params)

    @cached_property
    def train_step(self) -> Callable:
        """The jitted `training.step`; donates the state."""
        step = make_train_step(self.method, self.options, self.optimizer)
        quick = quick_products(platform_of(self.mesh)) if self.method.is_transformer else {}
        return jax.jit(
            placed(self.mesh, step, self.zero),
            donate_argnums=0,
            out_shardings=(self.state_shardings, replicated(self.mesh)),
            compiler_options=quick,
        )

    @cached_property
    def loss(self) -> Callable:
        """The jitted loss alone, `(params, frozen, batch, keys) -> loss, metrics`."""
        return jax.jit(placed(self.mesh, self.method.loss, self.zero))

    @cached_property
    def preview(self) -> Callable:
        """The jitted `(params, frozen, batch, key) -> uint8 images (N, H, W, C)`, or None."""
        return jax.jit(placed(self.mesh, self.method.preview, self.zero, once=True))

    @cached_property
    def _compiled_init(self) -> Callable:
        return jax.jit(
            self._init,
            out_shardings=self.state_shardings,
            compiler_options=run_once_options(),
            donate_argnums=2,
        )

    @cached_property
    def _init(self) -> Callable:
        """`(key, frozen, params) -> state`, jitted so that its shapes and its program share a
        trace."""
        widths = self.options.ema_profiles

        def init(key, frozen, params):
            return init_state(self.method, self.optimizer, key, frozen, params, widths)

        return jax.jit(init)
