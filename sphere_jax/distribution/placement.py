"""Where batches and weights lie while a program is traced, for code that knows no mesh.

`placed` wraps what is given to `jax.jit`. Layers below it call `split_by_batch` on activations and
`gathered` on weights. Without a wrapper, or on one device, both return their argument.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphere_jax.distribution.mesh import BATCH_AXES, spec_of


class _Placement(NamedTuple):
    mesh: Mesh
    zero: bool  # whether weights are split over `data`, too
    once: bool  # whether those that a loop reads were gathered before


_PLACEMENT: ContextVar[_Placement | None] = ContextVar("placement", default=None)


def placed(mesh: Mesh, function: Callable, zero: bool = False, *, once: bool = False) -> Callable:
    """`function`, traced with its devices known.

    zero: parameters given to it have the shardings of `tree_shardings(mesh, tree, zero=True)`; a
      network gathers them over `data` where it is applied, in the dtype of its products.
    once: the first argument is gathered before the function runs. For programs that apply a
      network in a loop.
    """
    if mesh.size == 1:
        return function

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        token = _PLACEMENT.set(_Placement(mesh, zero, False))
        try:
            if once:
                args = (jax.tree.map(gathered, args[0]), *args[1:])
                _PLACEMENT.set(_Placement(mesh, zero, True))
            return function(*args)
        finally:
            _PLACEMENT.reset(token)

    return traced


def split_by_batch(x: jax.Array) -> jax.Array:
    """An array whose leading axis is the batch, (B, ...), split over the batch axes of the mesh.

    Between the layers of a stack this decides what the compiler moves: weights, a layer at a time,
    and not the activations of the whole batch. An array of another B, which the devices do not
    divide, is left to the compiler.
    """
    known = _PLACEMENT.get()
    if known is None or x.ndim == 0 or x.shape[0] % known.mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(known.mesh, P(BATCH_AXES)))


def gathered(weight: jax.Array) -> jax.Array:
    """A parameter as a network reads it: gathered over `data` if it is split over that, and the
    kernel of a convolution, (..., h, w, inputs, outputs), over `fsdp` too. Its gradient is split
    again, so that the sum over the batch is a reduce-scatter.

    The compiler for TPUs otherwise sends the parts of a split kernel round, and convolves with one
    at a time, a few channels of the output each: the step of imagenet_slerp, which encodes its
    images, took 3.3 times as long by its estimate.
    """
    known = _PLACEMENT.get()
    if known is None:
        return weight
    split = spec_of(known.mesh, weight.shape, known.zero)
    whole = P() if weight.ndim > 3 else spec_of(known.mesh, weight.shape)
    if whole == split:
        return weight
    split, whole = NamedSharding(known.mesh, split), NamedSharding(known.mesh, whole)
    if known.once:
        return jax.lax.with_sharding_constraint(weight, whole)
    return _moved(weight, split, whole)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _moved(weight: jax.Array, split: NamedSharding, whole: NamedSharding) -> jax.Array:
    # The first constraint keeps a cast of `weight` before the transfer, which it halves.
    weight = jax.lax.with_sharding_constraint(weight, split)
    return jax.lax.with_sharding_constraint(weight, whole)


_moved.defvjp(
    lambda weight, split, whole: (_moved(weight, split, whole), None),
    lambda split, whole, _, gradient: (jax.lax.with_sharding_constraint(gradient, split),),
)
