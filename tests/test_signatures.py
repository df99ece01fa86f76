"""Signatures state types and shapes, and a wrong shape is refused where it enters."""

import ast
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError
from signatures import CHECKED

from sphere_jax.geometry import GlobalSphere, TokenSphere, sphere
from sphere_jax.nn.transformer_layers import modulate
from sphere_jax.sampling import noise_of

BARE = {"jax.Array", "jnp.ndarray", "np.ndarray", "Array", "AnyArray"}


def files(name: str) -> list[Path]:
    found = find_spec(name)
    if found.submodule_search_locations:
        return sorted(Path(found.submodule_search_locations[0]).rglob("*.py"))
    return [Path(found.origin)]


def public_functions(file: Path) -> list[ast.FunctionDef]:
    """Functions of the module and methods of its classes that others may call."""
    tree = ast.parse(file.read_text())
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return [
        node
        for body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef)
        and (not node.name.startswith("_") or node.name in ("__init__", "__call__"))
    ]


def annotations(function: ast.FunctionDef) -> dict[str, ast.expr | None]:
    """Of each parameter but self and cls, and of what is returned."""
    a = function.args
    parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    found = {p.arg: p.annotation for p in parameters if p and p.arg not in ("self", "cls")}
    return found if function.name == "__init__" else found | {"return": function.returns}


def has_bare_array(annotation: ast.expr) -> bool:
    """Whether an array is named without its shape, as in `jax.Array` or `tuple[np.ndarray]`."""
    if ast.unparse(annotation) in BARE:
        return True
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        array, *shape = annotation.slice.elts
        if ast.unparse(array) in BARE and shape and isinstance(shape[0], ast.Constant):
            return False  # Float[Array, "batch"]
    return any(has_bare_array(part) for part in ast.iter_child_nodes(annotation))


FILES = [file for name in CHECKED for file in files(name)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_public_functions_have_types_and_arrays_have_shapes(file):
    missing, bare = [], []
    for function in public_functions(file):
        for name, annotation in annotations(function).items():
            if annotation is None:
                missing.append(f"{function.name}: {name}")
            elif has_bare_array(annotation):
                bare.append(f"{function.name}: {name}: {ast.unparse(annotation)}")
    assert not missing, f"{file.name} has parameters without a type: {missing}"
    assert not bare, f"{file.name} has arrays without a shape: {bare}"


@pytest.mark.parametrize(
    "annotation, bare",
    [
        ("Float[Array, 'batch d']", False),
        ("tuple[Float[Array, 'd'], int]", False),
        ("Float[jax.Array, 'batch d'] | None", False),
        ("jax.Array | None", True),
        ("tuple[np.ndarray, int]", True),
        ("dict[str, jax.Array]", True),
    ],
)
def test_an_array_without_a_shape_is_found(annotation, bare):
    assert has_bare_array(ast.parse(annotation, mode="eval").body) == bare


Z = jnp.ones((2, 3, 3, 4))
KEYS = jax.random.split(jax.random.key(0), 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sphere.angle(Z, Z[..., :3]),
        lambda: sphere.slerp(Z, Z, jnp.ones(2)),
        lambda: TokenSphere(1.0).interpolate(Z, Z, jnp.ones(3)),  # two samples, three times
        lambda: TokenSphere(1.0).project(Z[0]),
        lambda: GlobalSphere().step(Z, Z.astype(jnp.int32), 0.1),
        lambda: noise_of(KEYS[0], (2,)),
        lambda: noise_of(jax.random.key_data(KEYS), (2,)),
        lambda: jax.eval_shape(modulate, Z[:, 0], Z[:1, 0], Z[:, 0]),
    ],
)
def test_a_wrong_shape_is_refused(call):
    with pytest.raises(TypeCheckError):
        call()
