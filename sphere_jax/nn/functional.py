"""A Flax NNX module as pure functions of a plain nested dict of arrays.

Train state, checkpoints and sharding rules all use `{"blocks": {"qkv": {"kernel": array}}}` and no
NNX. The module is reassembled while the caller's `jax.jit` traces, so a compiled step has no cost.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.common.shapes import OneKey
from sphere_jax.distribution.placement import gathered, gathered_over_data
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.transformer_layers import Stack

Params = dict[str, Any]


class Network:
    """`init(key) -> params` and `apply(params, ...) -> output` of the module that `build` makes.

    `build` takes an `nnx.Rngs` and returns an `nnx.Module`. It is called once here without
    allocating (`nnx.eval_shape`) and once in every `init`. All variables of the module, of every
    kind, are leaves of `params`. A module that updates its variables when called is not supported:
    the pure function would lose the update.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        self.module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))  # shapes and static attributes
        self._graphdef = nnx.graphdef(self.module)
        self._products = _products(self.module)
        self._stacks = {p for p, inner in nnx.iter_modules(self.module) if isinstance(inner, Stack)}

    @property
    def shapes(self) -> Params:
        """The parameters as `jax.ShapeDtypeStruct`: those of `init`, known without tracing it."""
        return nnx.to_pure_dict(nnx.state(self.module))

    def init(self, key: OneKey) -> Params:
        """New parameters from a typed PRNG key; works under `jax.jit` and `jax.eval_shape`."""
        return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(key))))

    def bind(self, params: Params) -> nnx.Module:
        """The module with these parameters, to call any of its methods.

        Factors of products are cast to their dtype here, once, and not in every layer of a loop,
        and gathered where a mesh has split them (`distribution/placement.py`): those of a stack of
        layers over `data`, and over the other axes where a layer is applied; without `fsdp`, there
        alone.
        """

        def ready(path, leaf):
            path = tuple(key.key for key in path)
            dtype = self._products.get(path)
            stacked = any(path[:n] in self._stacks for n in range(len(path)))
            gather = gathered_over_data if stacked else gathered
            return gather(leaf if dtype is None else leaf.astype(dtype))

        return nnx.merge(self._graphdef, jax.tree_util.tree_map_with_path(ready, params))

    def apply(self, params: Params, *args: Any, **kwargs: Any) -> Any:
        """`module(*args, **kwargs)` with these parameters."""
        return self.bind(params)(*args, **kwargs)


def _products(module: nnx.Module) -> dict[tuple, Any]:
    """Paths of parameters that are read as factors of a product in a lower precision alone, with
    its dtype: the kernels of `Linear`, stacked ones too."""
    found = {}
    for path, inner in nnx.iter_modules(module):
        if type(inner) is Linear and jnp.dtype(inner.dtype) != jnp.float32:
            found[(*path, "kernel")] = jnp.dtype(inner.dtype)
    return found


class Networks:
    """In place of a `Network` where only the shapes of its parameters count: of several networks
    together, say."""

    module = None

    def __init__(self, shapes: Params):
        self.shapes = shapes


def num_parameters(params: Params) -> int:
    """Number of scalars in a tree of arrays or of `jax.ShapeDtypeStruct`."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
