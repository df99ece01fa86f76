"""The house of docs/architecture.md: a package imports only from packages on floors below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "sphere_jax"
FLOORS = [  # from the ground up
    {"common"},
    {"config", "geometry", "distribution"},
    {"data", "nn", "sampling"},
    {"models"},
    {"weights"},
    {"losses", "tokenizers", "evaluation"},
    {"methods", "training"},
    {"runs"},
    {"studies"},
    {"cli"},
    {"main", "sample", "edit", "evaluate", "compare", "convert", "ema", "prepare", "probe"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def imports(file: Path) -> set[str]:
    """Top-level names below sphere_jax that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("sphere_jax")
        ):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found - {"__version__"}


FILES = [file for file in sorted(ROOT.rglob("*.py")) if file != ROOT / "__init__.py"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} has no floor; give it one here and in docs/architecture.md"
    above = {name for name in imports(file) - {own} if LEVEL[name] >= LEVEL[own]}
    assert not above, f"{own} imports from {sorted(above)}, on a floor that is not below it"


def test_geometry_knows_neither_flax_nor_configs():
    text = "".join(file.read_text() for file in (ROOT / "geometry").glob("*.py"))
    assert "flax" not in text and "sphere_jax.config.reading" not in text
