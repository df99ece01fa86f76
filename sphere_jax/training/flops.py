"""FLOPs of a training step, counted in its jaxpr without compiling it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params
from jaxtyping import PyTree

from sphere_jax.distribution.placement import plain_forms

PRODUCTS = ("dot_general", "conv_general_dilated")  # primitives that are counted


def matmul_flops(function: Callable, *args: PyTree) -> float:
    """FLOPs of all matrix products and convolutions of `function(*args)`.

    `args` may be `jax.ShapeDtypeStruct`s. A scan counts all its iterations, a `while` loop one.
    """
    return _flops(function, args, trained=0)


def traced_flops(jaxpr: Any) -> float:
    """`matmul_flops` of a function that is traced already, by its closed jaxpr; as the others count
    only if it was traced inside of `placement.plain_forms`."""
    return _count(jaxpr.jaxpr, [False] * len(jaxpr.jaxpr.invars))[0]


def training_flops(function: Callable, *args: PyTree) -> float:
    """The same for `function` and its gradient with respect to its first argument.

    A product of two factors counts once for its value, and once more for each factor that depends
    on the first argument: 3 in the middle of a network, 2 at its inputs, and 1 in a frozen encoder.
    What `jax.checkpoint` computes again in the backward pass is not counted.
    """
    return _flops(function, args, trained=1)


def step_flops(
    method: Any,
    params: dict,
    frozen: dict,
    shapes: dict[str, tuple[tuple[int, ...], Any]],
    batch_size: int,
) -> float:
    """FLOPs of one training step of a method; `shapes` are `(shape, dtype)` of one example."""
    arguments = loss_arguments(method, params, frozen, shapes, batch_size)
    return training_flops(lambda *a: method.loss(*a)[0], *arguments)


def loss_arguments(
    method: Any,
    params: dict,
    frozen: dict,
    shapes: dict[str, tuple[tuple[int, ...], Any]],
    batch_size: int,
) -> tuple[dict, dict, dict, Any]:
    """Shapes of the arguments `(params, frozen, batch, keys)` of a method's loss in training."""
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
        for name, (shape, dtype) in shapes.items()
    }
    keys = jax.eval_shape(lambda: method.keys(jax.random.key(0), batch_size))
    if schedule := jax.eval_shape(method.schedule, jax.ShapeDtypeStruct((), jnp.int32)):
        frozen = frozen | {"schedule": schedule}
    return params, frozen, batch, keys


def _flops(function: Callable, args: tuple, trained: int) -> float:
    with plain_forms():
        jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    leaves = len(jax.tree.leaves(args[:trained]))
    return _count(jaxpr, [i < leaves for i in range(len(jaxpr.invars))])[0]


def _count(jaxpr, reached: Sequence[bool]) -> tuple[float, list[bool]]:
    """FLOPs, and which outputs depend on the trained inputs; `reached`: which inputs do."""
    total, live = 0.0, {v for v, is_live in zip(jaxpr.invars, reached, strict=True) if is_live}

    def is_live(variable) -> bool:
        return not isinstance(variable, Literal) and variable in live

    for equation in _used(jaxpr):
        given = [is_live(variable) for variable in equation.invars]
        name, params = equation.primitive.name, equation.params
        if name in PRODUCTS:
            flops, out = product_flops(equation) * (1 + sum(given)), [any(given)]
        elif name == "scan":
            flops, out = _scan(params, given)
        elif name == "while":
            flops, out = _while(params, given)
        elif name == "cond":
            counts = [_count(branch.jaxpr, given[1:]) for branch in params["branches"]]
            flops = max(flops for flops, _ in counts)
            out = [any(outs) for outs in zip(*(outs for _, outs in counts), strict=True)]
        elif name == "stop_gradient":
            flops, out = 0.0, [False]
        elif inner := next(jaxprs_in_params(params), None):  # jit, remat, custom derivatives
            fits = len(inner.invars) == len(given)
            flops, out = _count(inner, given if fits else [any(given)] * len(inner.invars))
        else:
            flops, out = 0.0, [any(given)] * len(equation.outvars)
        total += flops
        for variable, through in zip(equation.outvars, out, strict=True):
            if through and jnp.issubdtype(variable.aval.dtype, jnp.inexact):
                live.add(variable)
    return total, [is_live(variable) for variable in jaxpr.outvars]


def product_flops(equation: Any) -> float:
    """Of an equation of one of PRODUCTS."""
    left, right, out = equation.invars[0].aval, equation.invars[1].aval, equation.outvars[0].aval
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = numbers
        return 2.0 * out.size * math.prod(left.shape[i] for i in contracted)
    return 2.0 * out.size * right.size / right.shape[numbers.rhs_spec[0]]


def _used(jaxpr) -> list:
    """The equations that the outputs depend on; a compiler removes the others."""
    needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    used = []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            used.append(equation)
            needed |= {v for v in equation.invars if not isinstance(v, Literal)}
    return used[::-1]


def _scan(params, given: list[bool]) -> tuple[float, list[bool]]:
    consts, carries = scan_arguments(params)
    flops, out = _settled(params["jaxpr"].jaxpr, given, consts, carries)
    return params["length"] * flops, out


def scan_arguments(params: Any) -> tuple[int, int]:
    """Numbers of constants and of carried values of a scan, its first arguments: JAX had them among
    the parameters of the equation up to 0.10, and has the tree of all arguments since."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carried, _ = params["ft_in"].unpack()
    return len(list(consts)), len(list(carried))


def _while(params, given: list[bool]) -> tuple[float, list[bool]]:
    test, body = params["cond_nconsts"], params["body_nconsts"]
    carries = len(given) - test - body
    return _settled(params["body_jaxpr"].jaxpr, given[test:], body, carries)


def _settled(jaxpr, given: list[bool], consts: int, carries: int) -> tuple[float, list[bool]]:
    """`_count` of a loop's body, repeated until no further carried value is reached."""
    while True:
        flops, out = _count(jaxpr, given)
        carried = [a or b for a, b in zip(given[consts : consts + carries], out, strict=False)]
        settled = [*given[:consts], *carried, *given[consts + carries :]]
        if settled == given:
            return flops, carried + out[carries:]
        given = settled
