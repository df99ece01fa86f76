"""Every benchmark runs: its smoke mode, through the code of a measurement."""

import argparse
import importlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sphere_jax.config.config_files import load_config

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(
    file.stem for file in (ROOT / "benchmarks").glob("*.py") if "__main__" in file.read_text()
)
LONG = ("accelerator", "accelerator_study", "hae", "rivals")  # much to compile, or to start
AGAINST_TORCH = ("input", "networks", "sample", "step_pages", "train_step")


# In every process that starts with it: no connection beyond this machine, and tries are recorded.
OFFLINE = """
import socket

def refuse(self, address, *more):
    if self.family == socket.AF_UNIX:
        return original(self, address, *more)
    with open({record!r}, "a") as file:
        print(address, file=file)
    raise OSError(f"no network in this test: {{address}}")

original, socket.socket.connect = socket.socket.connect, refuse
"""


@pytest.fixture
def offline(tmp_path_factory, monkeypatch) -> Path:
    """No connections, here and in processes that are started; the file that records those tried."""
    folder = tmp_path_factory.mktemp("offline")
    code = OFFLINE.format(record=str(folder / "tried"))
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(socket.socket, "connect", socket.socket.connect)  # restored after the test
    exec(code, {})
    return folder / "tried"


@pytest.fixture
def smoke(tmp_path, monkeypatch, capfd, offline):
    """Runs the smoke mode of a benchmark from an empty folder; returns the lines that it and the
    processes it starts print. It needs no network."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)

    def run(name: str) -> list[str]:
        importlib.import_module(f"benchmarks.{name}").main(["--smoke"])
        assert not list(tmp_path.iterdir())  # what it writes is in a temporary folder
        assert not offline.exists()
        return [line for line in capfd.readouterr().out.splitlines() if line.strip()]

    return run


def test_a_connection_is_refused_and_recorded_in_other_processes_too(offline):
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "no network in this test" in done.stderr
    with pytest.raises(OSError, match="no network in this test"):
        socket.create_connection(("127.0.0.1", 9))
    assert len(offline.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
             for name in BENCHMARKS]
)  # fmt: skip
def test_the_smoke_mode_prints_its_table_and_that_the_numbers_mean_nothing(name, smoke):
    first, *rest = smoke(name)
    assert first.startswith("Smoke mode") and first.endswith("the numbers mean nothing.")
    assert sum(bool(re.search(r"\d", line)) for line in rest) >= 2
    assert not re.search(r"\bnan\b", "\n".join(rest))
    if name in AGAINST_TORCH:
        alone = any("torch is not installed" in line for line in rest)
        assert alone == (importlib.util.find_spec("torch") is None)


@pytest.mark.parity
@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_pytorch_is_timed_beside_it(name, smoke):
    for package in ("torch", *(("diffusers",) if name == "networks" else ())):
        pytest.importorskip(package)
    lines = smoke(name)
    if name == "networks":
        rows = [line.split() for line in lines if line.startswith("taesd_")]
        assert len(rows) == 2 and all(float(row[-1]) < 1e-4 for row in rows)  # of the outputs
    elif name == "step_pages":
        assert sum(line.startswith("torch eager") for line in lines) == 2
    else:
        theirs = "torch DataLoader" if name == "input" else "torch eager"
        assert "sphere_jax is" in next(line for line in lines if theirs in line)


def test_flags_on_the_command_line_win_over_those_of_the_smoke_mode(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    cases = importlib.import_module("benchmarks.sit_cases")
    parse = importlib.import_module("benchmarks.smoke").parse
    args = parse(cases.flags("about"), ["--smoke", "--width=64"], lambda: cases.SMOKE)
    assert (args.width, args.depth, args.tokens) == (64, 1, [4])
    args = parse(cases.flags("about"), [], lambda: cases.SMOKE)
    assert (args.width, args.depth, args.smoke) == (192, 6, False)
    assert capsys.readouterr().out.count("Smoke mode") == 1


def test_rivals_have_configs_and_equal_time(monkeypatch):
    """Of those that the smoke mode leaves out, too."""
    monkeypatch.syspath_prepend(ROOT)
    rivals = importlib.import_module("benchmarks.rivals")
    for each in (rivals.BASE, *rivals.RIVALS):
        file, *changes = each.flags(*each.small)
        assert load_config(file.removeprefix("--config="), changes).stages
    rates = {"a": (100, 0.1), "b": (300, 0.1)}  # steps of the config, seconds a step
    assert rivals.steps_for(10, rates) == ["a.steps=25", "b.steps=75"]


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["sit_b", "lightning_xl"])
def test_twins_in_pytorch_are_the_same_networks(kind, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT)
    speed = importlib.import_module("benchmarks.accelerator_speed")
    way = importlib.import_module("benchmarks.torch_way").TorchWay()
    sizes = ["width=32", "depth=2", "heads=2"]
    more = dict(latent_side=2, classes=3, seed=0, remat="none")
    args = argparse.Namespace(network_sizes=sizes, **more)
    case = speed.make_case(speed.KINDS[kind], args, 2, "float32")
    twin, weights, batch = way.prepare(case, False)
    theirs = twin(batch["data"], batch["t"], batch["labels"].long()).detach().numpy()
    given = (case.data[name] for name in ("data", "t", "labels"))
    ours = np.asarray(case.network.apply(case.params, *given))
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < 1e-5
    assert sum(w.numel() for w in weights) == sum(x.size for x in jax.tree.leaves(case.params))


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["sit_b", "lightning_xl"])
def test_twins_sample_with_weights_that_are_cast_once(kind, monkeypatch):
    """Nothing else changes: autocast casts the same weights at each call."""
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT)
    speed = importlib.import_module("benchmarks.accelerator_speed")
    sample = importlib.import_module("benchmarks.sample")
    way = importlib.import_module("benchmarks.torch_way").TorchWay(half=True)
    args = argparse.Namespace(
        network_sizes=["width=32", "depth=2", "heads=2"], latent_side=2, classes=3, seed=0,
        remat="none",
    )  # fmt: skip
    case = speed.make_case(speed.KINDS[kind], args, 2)
    twin, weights, batch = way.prepare(case, False, sampling=True)
    assert sum(w.dtype == torch.bfloat16 for w in weights) > 10
    before, _, _ = way.prepare(case, False)
    given = batch["data"], batch["t"], batch["labels"].long()
    with way.precision(), torch.inference_mode():
        ours, theirs = (network(*given).float() for network in (twin, before))
    assert (ours - theirs).abs().max() < 0.01 * theirs.abs().max()  # of bfloat16's rounding
    assert sample.torch_sample(case, 2, False, way)().isfinite().all()
