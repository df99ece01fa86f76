"""Every benchmark runs: its smoke mode, from the same code as a measurement."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(
    file.stem for file in (ROOT / "benchmarks").glob("*.py") if "__main__" in file.read_text()
)


def run_smoke(name, capsys) -> str:
    """What it prints."""
    importlib.import_module(f"benchmarks.{name}").main(["--smoke"])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_smoke_mode_prints_the_table_and_leaves_nothing_behind(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    printed = run_smoke(name, capsys)
    first, *rest = printed.strip().splitlines()
    assert first.startswith("Smoke mode") and first.endswith("the numbers mean nothing.")
    assert sum(bool(line.strip()) for line in rest) >= 3  # a title, a head and a row at least
    assert not list(tmp_path.iterdir())
