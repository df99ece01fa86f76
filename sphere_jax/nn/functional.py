"""A Flax NNX module as pure functions of a plain nested dict of arrays.

Train state, checkpoints and sharding rules all see `{"blocks": {"qkv": {"kernel": array}}}` and
nothing of NNX; the module is put together again inside the caller's `jax.jit`, at trace time, so a
compiled step never pays for it.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Params = dict[str, Any]


class Network:
    """`init(key) -> params` and `apply(params, ...) -> output` of the module that `build` makes.

    `build` takes an `nnx.Rngs` and returns an `nnx.Module`. It is called once here without
    allocating (`nnx.eval_shape`) and once in every `init`. All variables of the module, whatever
    their kind, are leaves of `params`; a module that writes to its variables when called is not
    supported, since the pure function would drop the write.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        self.module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))  # shapes and static attributes
        self._graphdef = nnx.graphdef(self.module)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters from a typed PRNG key. Fine under `jax.jit` and `jax.eval_shape`."""
        return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(key))))

    def bind(self, params: Params) -> nnx.Module:
        """The module with these parameters in it, to call any of its methods."""
        return nnx.merge(self._graphdef, params)

    def apply(self, params: Params, *args, **kwargs):
        """`module(*args, **kwargs)` with these parameters."""
        return self.bind(params)(*args, **kwargs)


def num_parameters(params: Params) -> int:
    """Number of scalars in a tree of arrays or of `jax.ShapeDtypeStruct`."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
