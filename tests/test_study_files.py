"""What `benchmarks.accelerator_study` writes, and that its arms are trained for equal steps."""

import argparse
import importlib
import json
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sphere_jax.methods.base import Method

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_weights_in_parts_come_back_in_bfloat16_and_no_part_is_too_large(benchmark, tmp_path):
    parts, rng = benchmark("weight_parts"), np.random.default_rng(0)
    tree = {
        "blocks": {"kernel": rng.normal(size=(40, 32)), "scale": np.float32(1.5)},
        "small": rng.normal(size=7),
    }
    files = parts.write_parts(tmp_path, "slerp", tree, limit=1000)
    assert len(files) > 2 and all(file.stat().st_size < 2500 for file in files)
    found = parts.read_parts(files)
    assert set(found) == {"blocks/kernel", "blocks/scale", "small"}
    for name, leaf in (("blocks/kernel", tree["blocks"]["kernel"]), ("small", tree["small"])):
        expected = np.asarray(jnp.asarray(leaf, jnp.bfloat16), np.float32)
        np.testing.assert_array_equal(found[name], expected)
    assert found["blocks/scale"] == [1.5]


def test_pictures_are_whole_png_files(benchmark, tmp_path):
    pictures, path = benchmark("pictures"), tmp_path / "a.png"
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    table = pictures.grid(images, 3)
    pictures.write_png(path, table)
    read = np.asarray(Image.open(path))
    np.testing.assert_array_equal(read, table)
    np.testing.assert_array_equal(read[7:12, 6:10], images[4])  # second row, second column
    x = np.arange(50)
    drawn = pictures.curves({"down": (x, 50.0 - x), "up": (x, 1.0 * x)}, 100, 60)
    assert drawn.shape == (60, 100, 3)
    for colour, corner in zip(pictures.COLOURS, (drawn[:9, :9], drawn[-9:, :9]), strict=False):
        assert (corner == colour).all(-1).any()


class Counting(Method):
    """Its parameter is what its steps have added up of the batches."""

    trains = ("network",)

    def __init__(self, options):
        self.options = options

    def init(self, key, frozen):
        return {"network": {"kernel": jnp.zeros(3)}}

    def loss(self, params, frozen, batch, keys):
        error = jnp.mean((params["network"]["kernel"][None] - batch["latents"]) ** 2)
        return error, {"error": error}


@pytest.mark.parametrize("most", [7, 1000])
def test_arms_see_the_same_batches_for_equal_steps(benchmark, most):
    study_parts = benchmark("study_parts")
    args = argparse.Namespace(seed=0, block=3, most_steps=most)
    study = study_parts.Study(args, *[None] * 7)
    options = study_parts.FlowOptions(ema_decay=0.0)
    methods = {"a": Counting(options), "b": Counting(options)}

    def batch(key):
        return {"latents": study_parts.jax.random.normal(key, (2, 3)), "labels": jnp.zeros(2, int)}

    deadline = time.monotonic() + (600 if most == 7 else 0)
    found = study._in_turns(methods, {}, batch, (), deadline, "network", "error")
    assert found.steps == (7 if most == 7 else 6)  # at least two blocks, whatever the time
    assert all(len(curve[0]) == found.steps for curve in found.curves.values())
    a, b = (found.weights[name]["kernel"] for name in "ab")
    assert np.abs(a).min() > 0
    np.testing.assert_array_equal(a, b)
    assert found.report["error"]["a"][-1][0] == found.steps
    assert found.report["steps_left_out"] == {"a": 0, "b": 0}


def test_steps_that_are_not_finite_are_counted(benchmark):
    study_parts = benchmark("study_parts")
    args = argparse.Namespace(seed=0, block=2, most_steps=4)
    study = study_parts.Study(args, *[None] * 7)
    methods = {"a": Counting(study_parts.FlowOptions(ema_decay=0.0))}
    batch = {"latents": jnp.full((2, 3), jnp.inf), "labels": jnp.zeros(2, int)}
    found = study._in_turns(methods, {}, lambda key: batch, (), 1e9, "network", "error")
    assert found.steps == 4 and found.report["steps_left_out"] == {"a": 4}


class CutStudy:
    """Encodes and finetunes; its flows do not fit."""

    about = {"training_images": 3}

    def train_decoders(self, seconds):
        return argparse.Namespace(report={"steps": 7}, weights={})

    def train_flows(self, deadline):
        raise MemoryError("no more\nand a long story")


def test_a_study_that_fails_keeps_what_it_has(benchmark, monkeypatch, tmp_path, capsys):
    study = benchmark("accelerator_study")
    monkeypatch.setattr(study.Study, "encoded", lambda args: CutStudy())
    with pytest.raises(MemoryError):
        study.main(["--images=x", "--tokenizer=y", f"--out={tmp_path / 'out'}"])
    found = json.loads((tmp_path / "out" / "study.json").read_text())
    assert found["unfinished"] == {"flows": "MemoryError: no more"}
    assert found["training_images"] == 3 and found["decoders"] == {"steps": 7}
    assert set(found["seconds"]) == {"encode", "decoders", "flows"}
