"""Every benchmark runs: its smoke mode, through the code of a measurement."""

import argparse
import importlib
import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(
    file.stem for file in (ROOT / "benchmarks").glob("*.py") if "__main__" in file.read_text()
)
LONG = ("accelerator_study", "hae", "rivals")  # four stages and more to compile
AGAINST_TORCH = ("input", "networks", "sample", "train_step")


@pytest.fixture
def smoke(tmp_path, monkeypatch, capsys):
    """Runs the smoke mode of a benchmark from an empty folder; returns the lines it prints."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> list[str]:
        importlib.import_module(f"benchmarks.{name}").main(["--smoke"])
        assert not list(tmp_path.iterdir())  # what it writes is in a temporary folder
        return [line for line in capsys.readouterr().out.splitlines() if line.strip()]

    return run


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


def test_the_parts_of_the_accelerator_fit_its_minutes():
    accelerator = importlib.import_module("benchmarks.accelerator")
    assert sum(seconds for seconds, _ in accelerator.PARTS.values()) <= 60 * accelerator.MINUTES
