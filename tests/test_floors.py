"""The layout of docs/architecture.md: a room imports only from rooms on floors below it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "sphere_jax"
COMMANDS = {
    "main",
    "sample",
    "edit",
    "evaluate",
    "compare",
    "convert",
    "ema",
    "prepare",
    "preflight",
    "probe",
    "rehearse",
}
FLOORS = [  # from the ground up
    {"common"},
    {"config", "geometry", "distribution"},
    {"data", "nn", "sampling"},
    {"models"},
    {"weights"},
    {"losses", "tokenizers", "evaluation"},
    {"methods", "training"},
    {"runs"},
    {"studies", "rehearsal"},
    {"cli", "__main__"} | COMMANDS,  # the commands stand on cli
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
FILES = [file for file in sorted(ROOT.rglob("*.py")) if file != ROOT / "__init__.py"]
PLUGINS = {  # package of plug-ins: what its modules are found by
    "methods": "METHOD",
    "tokenizers": "TOKENIZER",
    "models": "NETWORK",
    "evaluation/features": "FEATURES",
    "evaluation/measures": "MEASURE",
    "data/sources": "SOURCE",
}


def imports(file: Path) -> set[str]:
    """Rooms of sphere_jax that a file imports from, wherever in the file."""
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


def modules(file: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} has no floor; give it one here and in docs/architecture.md"
    below = {name for name, level in LEVEL.items() if level < LEVEL[own]}
    below |= {"cli"} if own in COMMANDS | {"__main__"} else set()
    above = imports(file) - {own} - below
    assert not above, f"{own} imports from {sorted(above)}, on a floor that is not below it"


def test_number_of_rooms_and_floors():
    rooms = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in FILES}
    assert rooms == set(LEVEL)
    assert len(rooms) <= 30 and len(FLOORS) <= 10
    assert {file.stem for file in ROOT.glob("*.py")} == {"__init__", "__main__", "cli"} | COMMANDS


def test_geometry_knows_neither_flax_nor_configs():
    for file in (ROOT / "geometry").glob("*.py"):
        assert not [m for m in modules(file) if m.startswith(("flax", "sphere_jax.config"))]


def test_methods_know_neither_meshes_nor_files():
    """Only `runs/` knows paths of weights: a method names files and never opens one."""
    forbidden = ("sphere_jax.distribution", "sphere_jax.common.files", "sphere_jax.weights.opening",
                 "pathlib", "os", "open", "jax.sharding", "safetensors", "orbax")  # fmt: skip
    for file in (ROOT / "methods").glob("*.py"):
        known = modules(file)
        assert not [m for m in known if m.split(".")[0] in forbidden or m.startswith(forbidden[:3])]
        assert not re.search(r"\bopen\(|load_weights|fingerprint_of|\.load\(", file.read_text())


def test_models_know_neither_spheres_nor_losses():
    for file in (ROOT / "models").glob("*.py"):
        assert not imports(file) & {"geometry", "losses"}


def test_no_plug_in_is_named_outside_its_file():
    """No list of methods, tokenizers, networks, features or sources: a name in quotes stands in its
    own folder alone, apart from the defaults of a config."""
    # of arrays, parameters, files, keys of scores
    ordinary = {"decoder", "latents", "precomputed", "npz"}
    ordinary |= {"frechet_distance", "precision_recall", "class_agreement"}
    places: dict[str, set[str]] = {}
    for package, attribute in PLUGINS.items():
        for file in (ROOT / package).glob("*.py"):
            if re.search(rf"^{attribute} = ", file.read_text(), re.M):
                places.setdefault(file.stem, set()).add(package)
    assert len(places) > 20
    # Published networks have names of their own: those of features among them.
    published = {name for name, packages in places.items() if packages == {"evaluation/features"}}
    for file in FILES:
        where = file.relative_to(ROOT)
        if str(where) == "config/options.py":  # defaults
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        known = {name for name, found in places.items() if str(where.parent) in found} | ordinary
        if where.parts[0] in ("models", "weights", "tokenizers") or where.parent.name == "measures":
            known |= published  # a measure is of a network that its publication names
        assert not (strings & places.keys()) - known, where


def test_no_code_tests_the_type_of_options():
    """isinstance, hasattr and getattr of options would be a hidden list of plug-ins."""
    pattern = re.compile(
        r"(isinstance|hasattr|getattr)\([^)]*\b(settings|options|stage|tokenizer)\b"
    )
    for file in FILES:
        found = pattern.search(file.read_text())
        assert found is None, f"{file.relative_to(ROOT)}: {found.group(0)}"


def test_module_names_are_unique():
    """Two modules share a name only where they belong to one system: a network, its layout of
    weights and its tokenizer, say."""
    systems = {"methods", "tokenizers", "models", "layouts", "features", "sources", "measures"}
    places: dict[str, list[str]] = {}
    for file in FILES:
        if file.stem not in ("__init__", "base") and file.parent.name not in systems:
            places.setdefault(file.stem, []).append(str(file.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
