"""The commands for a bare GPU machine import what is there, and stand-ins do what originals do."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import einops
import ml_collections
import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from sphere_jax.config.config_files import run_file

ROOT = Path(__file__).parents[1]
COMMANDS = ("accelerator", "accelerator_study")
SOURCES = [file.read_text() for file in sorted((ROOT / "sphere_jax").rglob("*.py"))]
ABSENT = (
    "PIL", "einops", "grain", "jaxtyping", "matplotlib", "ml_collections", "mlxtend", "orbax",
    "safetensors", "sklearn", "tensorboardX", "array_record", "google.protobuf", "jinja2",
)  # fmt: skip


@pytest.fixture
def bare(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.bare")


def test_the_commands_import_without_the_packages_that_a_bare_image_lacks():
    code = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # an import of any of them fails
import {", ".join(f"benchmarks.{name}" for name in COMMANDS)}
from benchmarks import accelerator_numerics, bare
from sphere_jax.common import plugins
from sphere_jax.weights.catalogue import catalogue
assert len(plugins.known("methods", "METHOD")) > 5 and len(catalogue()) > 5
assert len(accelerator_numerics.shipped_configs()) > 5
print(*bare.MISSING)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["jaxtyping", "einops", "safetensors", "ml_collections", "PIL"]


def test_nothing_that_is_installed_is_replaced(bare):
    assert bare.MISSING == []
    assert sys.modules["einops"].rearrange is einops.rearrange


def test_every_name_of_jaxtyping_that_is_used_has_a_stand_in(bare, monkeypatch):
    used = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping":
                used |= {alias.name for alias in node.names}
    monkeypatch.setitem(sys.modules, "jaxtyping", None)
    bare._jaxtyping()
    made = sys.modules["jaxtyping"]
    assert len(used) > 8 and used <= vars(made).keys()
    assert made.Float[np.ndarray, " batch"] | float


def test_rearrange_is_that_of_einops_for_every_pattern_in_use(bare):
    patterns = {
        pattern
        for source in SOURCES
        for pattern in re.findall(r'"([a-z ()]+ -> [a-z ()]+)"', source)
    }
    assert len(patterns) > 6
    for pattern in patterns:
        left = bare._groups(pattern.split("->")[0])
        sizes = {name: 2 + i % 3 for i, name in enumerate(n for group in left for n in group)}
        shape = [int(np.prod([sizes[name] for name in group])) for group in left]
        x = np.arange(np.prod(shape)).reshape(shape)
        given = {n: sizes[n] for group in left if len(group) > 1 for n in group[1:]}
        expected = einops.rearrange(x, pattern, **given)
        np.testing.assert_array_equal(bare.rearrange(x, pattern, **given), expected)


@pytest.mark.parametrize(
    "pattern", ["a b -> a", "a b -> a c", "a ... -> ... a", "a -> a", "a (b c) -> a b c"]
)
def test_rearrange_refuses_what_it_does_not_know(bare, pattern):
    with pytest.raises(ValueError):
        bare.rearrange(np.zeros((2, 3)), pattern)


def test_safetensors_are_read_as_the_package_reads_them(bare, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "weights.safetensors"
    tensors = {
        "a": rng.normal(size=(2, 3)).astype(np.float32),
        "b": rng.normal(size=5).astype(ml_dtypes.bfloat16),
        "scalar": np.array(1.5, np.float16),
        "empty": np.zeros((0, 3), np.int64),
    }
    save_file(tensors, path, {"format": "test"})
    with safetensors.safe_open(path, "numpy") as theirs, bare.safe_open(path, "numpy") as ours:
        assert sorted(ours.keys()) == sorted(theirs.keys())
        assert ours.metadata() == theirs.metadata()
        for name, tensor in tensors.items():
            found = ours.get_tensor(name)
            assert found.dtype == tensor.dtype
            np.testing.assert_array_equal(found, tensor)
            part = ours.get_slice(name)
            assert part.get_shape() == theirs.get_slice(name).get_shape()
            assert part.get_dtype() == theirs.get_slice(name).get_dtype()
        np.testing.assert_array_equal(ours.get_slice("a")[1:, :2], tensors["a"][1:, :2])
    content = path.read_bytes()
    for damaged in (b"", content[:4], content[:20], content[:-1], b"\xff" * 40):
        path.write_bytes(damaged)
        with pytest.raises((bare.SafetensorError, ValueError)):
            bare.safe_open(path, "numpy")


def test_config_files_give_the_same_values(bare, monkeypatch):
    files = sorted((ROOT / "configs").glob("*.py"))
    expected = [run_file(file, "get_config").to_dict() for file in files]
    monkeypatch.setattr(ml_collections, "ConfigDict", bare.ConfigDict)
    assert [run_file(file, "get_config").to_dict() for file in files] == expected
