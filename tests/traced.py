"""What a traced function holds."""

from jax.extend.core import jaxprs_in_params


def equations(jaxpr):
    """All of a traced function, with those of the functions that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def constrained(jaxpr):
    """Shape and sharding of every array whose place is constrained."""
    for equation in equations(jaxpr):
        if equation.primitive.name == "sharding_constraint":
            yield equation.invars[0].aval.shape, equation.params["sharding"]


def kept_by_tensor(jaxpr) -> list[tuple[int, ...]]:
    """Shapes of the weights that are constrained to be split over `tensor` alone."""
    return [
        shape
        for shape, sharding in constrained(jaxpr)
        if [name for name in sharding.spec if name] == ["tensor"]
    ]


def made_whole(jaxpr) -> list[tuple[int, ...]]:
    """Shapes of the arrays that are constrained to lie whole on every device."""
    return [shape for shape, sharding in constrained(jaxpr) if sharding.is_fully_replicated]
