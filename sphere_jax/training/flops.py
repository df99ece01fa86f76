"""How many multiply-adds a function asks for, read off its jaxpr without compiling it."""

import math
from collections.abc import Callable

import jax


def matmul_flops(function: Callable, *args) -> float:
    """FLOPs of all matrix products and convolutions of `function(*args)`, the usual measure of a
    model's work. `args` may be `jax.ShapeDtypeStruct`s. Scans count every turn; recomputation in
    a backward pass counts too, so pass the forward function and take three times its result for a
    training step.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            outputs = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * equation.outvars[0].aval.size * kernel.size / outputs
        elif name == "scan":
            total += params["length"] * _count(params["jaxpr"].jaxpr)
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in params["branches"])
        else:
            total += sum(_count(inner) for inner in _inner(params))
    return total


def _inner(params):
    """The jaxprs inside an equation: jit, remat, custom derivatives, while."""
    for value in params.values():
        inner = getattr(value, "jaxpr", value)  # closed or open
        if hasattr(inner, "eqns"):
            yield inner
