"""Where batches and weights lie while a program is traced, for code that knows no mesh.

`placed` wraps what is given to `jax.jit`. Layers below it call `split_by_batch` on activations,
`gathered` on weights and `on_each_device` for kernels; without a wrapper, or on one device, these
change nothing. `platform` says what the program is for.

On a mesh with a `tensor` axis, a stack of layers that name the axis of their kernels to be split
(`nn/linear.py`) runs in `layers_split`: devices along `tensor` then hold the same examples, a part
of each such kernel, and of the features between two of them (`split_by_features`).
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphere_jax.distribution.mesh import platform_of, spec_of


class _Placement(NamedTuple):
    mesh: Mesh
    zero: bool  # whether weights are split over `data`, too
    once: bool  # whether those that a loop reads were gathered before
    layers: bool = False  # whether `tensor` splits layers here, and not examples

    @property
    def rows(self) -> tuple[str, ...]:
        """The axes that split the batch."""
        return tuple(axis for axis in self.mesh.axis_names if axis != "tensor" or not self.layers)


_PLACEMENT: ContextVar[_Placement | None] = ContextVar("placement", default=None)
_PLAIN: ContextVar[bool] = ContextVar("plain", default=False)


def placed(mesh: Mesh, function: Callable, zero: bool = False, *, once: bool = False) -> Callable:
    """`function`, traced with its devices known.

    zero: parameters given to it have the shardings of `tree_shardings(mesh, tree, zero=True)`; a
      network gathers them where it is applied, in the dtype of its products.
    once: the first argument is gathered before the function runs, whole and in its own dtype. For
      programs that apply a network in a loop.
    """

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


def platform() -> str:
    """The platform that a program is traced for, "cpu", "gpu" or "tpu": that of the devices of
    `placed`, which in a rehearsal are not here, or else JAX's own; "" inside of `plain_forms`."""
    if _PLAIN.get():
        return ""
    known = _PLACEMENT.get()
    return jax.default_backend() if known is None else platform_of(known.mesh)


@contextmanager
def plain_forms() -> Iterator[None]:
    """Every layer takes the form that it has on no platform in particular. FLOPs are counted in
    these: a sum of shifted products has no convolution, and a kernel no products to be seen."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def _several() -> _Placement | None:
    """Where arrays lie, if there is more than one device to choose from."""
    known = _PLACEMENT.get()
    return None if known is None or known.mesh.size == 1 else known


def split_by_batch(x: jax.Array) -> jax.Array:
    """An array whose leading axis is the batch, (B, ...), split over the batch axes of the mesh.

    Between the layers of a stack this decides what the compiler moves: weights, a layer at a time,
    and not the activations of the whole batch. An array of another B, which the devices do not
    divide, is left to the compiler.
    """
    known = _several()
    if known is None or x.ndim == 0 or x.shape[0] % known.mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(known.mesh, P(known.rows)))


@contextmanager
def layers_split() -> Iterator[None]:
    """Inside, `tensor` splits layers: `split_by_batch` and `gathered_layer` leave it to them. It
    changes nothing where weights were gathered before: there `tensor` splits examples."""
    known = _several()
    if known is None or known.once or "tensor" not in known.mesh.axis_names:
        yield
        return
    token = _PLACEMENT.set(known._replace(layers=True))
    try:
        yield
    finally:
        _PLACEMENT.reset(token)


def are_layers_split() -> bool:
    """Whether `layers_split` holds."""
    known = _several()
    return known is not None and known.layers


def split_by_features(x: jax.Array) -> jax.Array:
    """Activations (B, N, features, ...) between two split layers, the features split over `tensor`.
    Where it does not divide them, they are unchanged, and each device computes all of them."""
    split = _features(x)
    return x if split is None else jax.lax.with_sharding_constraint(x, split)


def _features(x: jax.Array) -> NamedSharding | None:
    """How (B, N, features, ...) is split in `layers_split`; None elsewhere, and where the mesh does
    not divide it."""
    known = _several()
    if known is None or not known.layers:
        return None
    even = x.shape[0] % known.mesh.size == 0 and x.shape[2] % known.mesh.shape["tensor"] == 0
    return NamedSharding(known.mesh, P(known.rows, None, "tensor")) if even else None


def on_each_device(function: Callable, *arrays: jax.Array) -> Any:
    """`function(*arrays)`, whose leading axes are the batch, by each device on its part of it; in
    `layers_split` on its part of the heads of (B, N, heads, ...), too.

    For kernels that the compiler cannot split. A batch that the devices do not divide is computed
    whole by each of them, and heads that `tensor` does not divide by each of its devices.
    """
    known = _several()
    if known is None:
        return function(*arrays)
    part = P() if arrays[0].shape[0] % known.mesh.size else P(known.rows)
    heads = [_features(x) for x in arrays]
    if all(heads):
        part = heads[0].spec
    return jax.shard_map(function, mesh=known.mesh, in_specs=part, out_specs=part, check_vma=False)(
        *arrays
    )


def gathered(weight: jax.Array) -> jax.Array:
    """A parameter as a network reads it: whole on every device. Its gradient is split again, so
    that the sum over the batch is a reduce-scatter.

    The compiler for TPUs otherwise sends the parts of a split kernel round and multiplies, or
    convolves, with one at a time, a few columns of the output each (docs/performance.md).
    """
    known = _several()
    if known is None:
        return weight
    split = spec_of(known.mesh, weight.shape, known.zero)
    return _gather(known, weight, split, P(), split)


def gathered_over_data(stack: jax.Array) -> jax.Array:
    """Of a stack of layers, (depth, ...), what `zero` has split over `data`, where `fsdp` leaves a
    share of it to each device; the rest, without `fsdp` everything, is left to
    `gathered_layer`, so that with `remat` no device ever holds all layers."""
    known = _several()
    if known is None or known.once:
        return stack
    split, left = (spec_of(known.mesh, stack.shape, zero) for zero in (known.zero, False))
    if known.mesh.shape["fsdp"] == 1 and split[:1] in ((), (None,)):
        return stack
    return _gather(known, stack, split, left, split)


def gathered_layer(
    weight: jax.Array, stack: tuple[int, ...], split: int | None = None
) -> jax.Array:
    """`gathered`, of one layer of a stack of this shape, where it is applied.

    split: the axis of the layer's weight that stays split over `tensor` in `layers_split`.
    """
    known = _several()
    if known is None:
        return weight
    stored, back = _of_layer(known, stack)
    return _gather(known, weight, stored, _kept(known, stored, split), back)


def _of_layer(known: _Placement, stack: tuple[int, ...]) -> tuple[P, P]:
    """How a layer of a stack of this shape lies in a loop over the layers, and its gradient."""
    back = spec_of(known.mesh, stack, known.zero)
    by_layer = known.once or (known.mesh.shape["fsdp"] == 1 and back[:1] in ((), (None,)))
    stored = back if by_layer else spec_of(known.mesh, stack)
    # What splits the layers themselves, the loop has gathered.
    return P(*stored[1:]), P(*back[1:])


def product_of_few(
    rows: jax.Array, kernel: jax.Array, stack: tuple[int, ...], split: int | None = None
) -> jax.Array:
    """(B, features_in) @ (features_in, features_out), split by the batch; the kernel is of one
    layer of a stack of this shape.

    The kernel is not gathered: each device multiplies its part with the rows of all that share the
    kernel, and they exchange rows, results and the gradients of both. Its own gradient needs no sum
    over them; that of the rows is one, in their dtype. A batch that the devices do not divide is
    multiplied with the kernel of `gathered_layer`.
    """
    known = _several()
    stored, back = (P(), P()) if known is None else _of_layer(known, stack)
    inputs, outputs = (*stored, None, None)[:2]
    sharing = {*_names(inputs), *_names(outputs)}
    if not sharing or known.once or rows.shape[0] % known.mesh.size:
        return rows @ gathered_layer(kernel, stack, split)

    def split_over(x, *axes):
        return jax.lax.with_sharding_constraint(x, NamedSharding(known.mesh, P(*axes)))

    others = tuple(axis for axis in known.rows if axis not in sharing) or None
    stays = NamedSharding(known.mesh, stored)
    kernel = _moved(kernel, stays, stays, NamedSharding(known.mesh, back))
    return split_by_batch(split_over(split_over(rows, others, inputs) @ kernel, others, outputs))


def _kept(known: _Placement, stored: P, split: int | None) -> P:
    """What is left of a layer's split: `tensor` along this axis, if it is what splits it first."""
    if split is None or not known.layers or len(stored) <= split:
        return P()
    return P(*(None,) * split, "tensor") if _names(stored[split])[:1] == ("tensor",) else P()


def _names(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh's axes that split one axis of an array."""
    return axes if isinstance(axes, tuple) else () if axes is None else (axes,)


def _gather(known: _Placement, weight: jax.Array, split: P, whole: P, back: P) -> jax.Array:
    if split == whole:
        return weight
    split, whole, back = (NamedSharding(known.mesh, spec) for spec in (split, whole, back))
    if known.once:
        return jax.lax.with_sharding_constraint(weight, whole)
    return _moved(weight, split, whole, back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _moved(
    weight: jax.Array, split: NamedSharding, whole: NamedSharding, back: NamedSharding
) -> jax.Array:
    # The first constraint keeps a cast of `weight` before the transfer, which it halves.
    weight = jax.lax.with_sharding_constraint(weight, split)
    return jax.lax.with_sharding_constraint(weight, whole)


_moved.defvjp(
    lambda weight, split, whole, back: (_moved(weight, split, whole, back), None),
    lambda split, whole, back, _, gradient: (jax.lax.with_sharding_constraint(gradient, back),),
)
