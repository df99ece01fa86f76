"""The GPU benchmark keeps what it found: parts that die, contenders that fail, time that ends."""

import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Stands for the process of a part. Its arguments: --parts NAME --out=FILE ...
PART = """
import json, os, signal, sys, time
name, out = sys.argv[-4], sys.argv[-3].removeprefix("--out=")
assert sys.argv[-2].startswith("--begun=") and sys.argv[-1].startswith("--minutes=")
if name == "geometry":
    os.kill(os.getpid(), signal.SIGSEGV)
if name == "images":
    time.sleep(600)
if name == "kernels":
    sys.exit(3)
cut = {name: "RuntimeError: out of memory"} if name == "methods" else {}
with open(out, "w") as file:
    json.dump({"parts": {name: {"of": name}},
               "unfinished": cut, "seconds": {}}, file)
"""


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_a_part_that_dies_is_one_line_and_the_others_go_on(benchmark, monkeypatch, tmp_path, capfd):
    accelerator, out = benchmark("accelerator"), tmp_path / "found.json"
    monkeypatch.setattr(accelerator, "_command", lambda: [sys.executable, "-c", PART])
    monkeypatch.setattr(accelerator, "KILLED", 0)
    parts = ["images", "device", "geometry", "kernels", "methods"]
    shares = dict.fromkeys(parts, (30.0, None)) | {"images": (1.0, None)}
    monkeypatch.setattr(accelerator, "PARTS", shares)
    accelerator.main([f"--out={out}", "--minutes=2", "--parts", *parts])
    found = json.loads(out.read_text())
    assert set(found["parts"]) == {"device", "methods"}
    assert found["unfinished"] == {
        "geometry": "its process ended by SIGSEGV",
        "images": "its process was killed because the time was over",
        "kernels": "its process ended with exit code 3",
        "methods": "RuntimeError: out of memory",
    }
    assert found["seconds"]["images"] < 30  # the others have kept theirs
    said = capfd.readouterr().out
    assert said.count("is not finished: ") == 3  # the fourth has said it itself
    accelerator.main([f"--out={out}", "--minutes=0", "--parts", *parts])
    found = json.loads(out.read_text())
    assert found["parts"] == {} and set(found["unfinished"]) == set(parts)


def test_one_part_keeps_what_it_found_before_it_failed(benchmark, monkeypatch, tmp_path, capsys):
    accelerator, out = benchmark("accelerator"), tmp_path / "found.json"

    def fails(args, deadline, found):
        found["first"] = 1
        raise MemoryError("no more\nand a long story")

    for variable in (
        "PYTHON_CLIENT_PREALLOCATE",
        "PYTHON_CLIENT_MEM_FRACTION",
        "CLIENT_MEM_FRACTION",
    ):
        monkeypatch.setenv(f"XLA_{variable}", "")  # restored after the test
        monkeypatch.delenv(f"XLA_{variable}")
    monkeypatch.setattr(accelerator, "PARTS", {"train_x": (2.0, fails)})
    accelerator.main([f"--out={out}", "--parts", "train_x"])
    found = json.loads(out.read_text())
    assert found["parts"] == {"train_x": {"first": 1}}
    assert found["unfinished"] == {"train_x": "MemoryError: no more"}
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == accelerator.MEMORY[True]
    assert capsys.readouterr().out.count("MemoryError") == 1


def test_a_process_ends_in_time_with_what_it_has(tmp_path):
    file, code = (
        tmp_path / "found.json",
        """
import sys, time
from pathlib import Path
from benchmarks.timed import stop_at
found = {"running": "images", "parts": {"device": 1}}
with stop_at(time.monotonic() + 60, found, Path(sys.argv[1])):
    pass
with stop_at(time.monotonic() + 0.2, found, Path(sys.argv[1])):
    time.sleep(600)
""",
    )
    line = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == "\nThe time was over during images.\n"
    found = json.loads(file.read_text())
    assert found["parts"] == {"device": 1} and found["unfinished"] == {
        "images": "the time was over"
    }


def test_the_parts_fit_their_minutes(benchmark):
    accelerator = benchmark("accelerator")
    assert sum(seconds for seconds, _ in accelerator.PARTS.values()) <= 60 * accelerator.MINUTES
    assert 60 * accelerator.MINUTES + accelerator.KILLED < 60 * 8 - 20  # and its own start
    assert accelerator.CUT < accelerator.KILLED


class Clock:
    """Advances by what contenders take; the last of their durations counts on."""

    def __init__(self):
        self.now = 0.0

    def contender(self, *durations, error_at=math.inf):
        calls = 0

        def call():
            nonlocal calls
            calls += 1
            if calls >= error_at:
                raise RuntimeError("out of memory")
            self.now += durations[min(calls, len(durations)) - 1]

        return call


def test_contenders_are_warmed_up_until_two_turns_are_alike(benchmark):
    rounds, durations = benchmark("rounds"), (9, 1.4, 1.2, 1.1, 1.05, 1.04, 1.03, 1.0)
    for warm_up, first in ((0.0, 1.2), (60.0, 1.03)):
        clock = Clock()
        contenders = {"slow": clock.contender(*durations)}
        times = rounds.time_rounds(contenders, 2, lambda clock=clock: clock.now, 0, warm_up=warm_up)
        assert times["slow"][0] == pytest.approx(first)


def test_calls_in_which_a_contender_settles_are_not_timed(benchmark):
    """The first call after another contender takes 9 s here, and all others 1."""
    rounds, clock, last = benchmark("rounds"), Clock(), ""

    def contender(name):
        def call():
            nonlocal last
            clock.now += 1 if last == name else 9
            last = name

        return call

    contenders = {name: contender(name) for name in "ab"}
    for settle in (0, 1):
        times = rounds.time_rounds(contenders, 4, lambda: clock.now, 0, settle=settle)
        found = [*times["a"], *times["b"]]
        assert len(found) == 8 and (max(found) == 1) == (settle == 1)


def test_an_error_in_a_round_keeps_the_rounds_and_the_other_contenders(benchmark, capsys):
    rounds, speed, clock = benchmark("rounds"), benchmark("accelerator_speed"), Clock()
    failed = {}
    contenders = {
        "good": clock.contender(1.0),
        "bad": clock.contender(2.0, error_at=5),  # in its third round
        "worse": clock.contender(2.0, error_at=1),
        "unlucky": clock.contender(4.0, error_at=3),
    }
    times = rounds.time_rounds(contenders, 5, lambda: clock.now, 0, failed=failed)
    assert times == {"good": [1.0] * 5, "bad": [2.0] * 2, "unlucky": [4.0]}
    assert failed == {name: "RuntimeError: out of memory" for name in ("bad", "worse", "unlucky")}
    rows = speed.report("title", times, 1e12, 10)["rows"]
    assert rows["bad"]["times_of_good"] == 2 and rows["good"]["images_per_s"] == 10
    said = capsys.readouterr().out
    assert all(f"  {name} failed: RuntimeError: out of memory\n" in said for name in failed)
    with pytest.raises(RuntimeError):
        rounds.time_rounds({"worse": clock.contender(2.0, error_at=1)}, 5, lambda: clock.now, 0)


def test_the_deadline_is_kept_between_contenders(benchmark, capsys):
    rounds, failed = benchmark("rounds"), {}
    calls = {"quick": 0, "slow": 0}

    def quick():
        calls["quick"] += 1

    def slow():
        calls["slow"] += 1
        if calls["slow"] == 3:  # the first round
            time.sleep(max(0, deadline - time.monotonic()) + 0.01)

    deadline = time.monotonic() + 0.5
    contenders = {"quick": quick, "slow": slow, "last": quick}
    times = rounds.time_rounds(contenders, 5, seconds=0, deadline=deadline, failed=failed)
    assert [len(times[name]) for name in contenders] == [1, 1, 1]
    assert failed == {"last": "no round: its number is of the warm-up"} and calls["slow"] == 3
    failed.clear()
    assert rounds.time_rounds(contenders, 5, deadline=0.0, failed=failed) == {}
    assert set(failed) == set(contenders)


def test_exact_products_have_no_share_of_the_peak_of_bfloat16(benchmark, monkeypatch, capsys):
    speed = benchmark("accelerator_speed")
    monkeypatch.setattr(speed, "peak", lambda kind: 1e12)
    times = {"float32": [2.0], "bfloat16": [1.0]}
    rows = speed.report("title", times, 5e11, 1, unrated=("float32",))["rows"]
    assert rows["float32"]["share_of_peak"] is None and rows["bfloat16"]["share_of_peak"] == 0.5
    assert capsys.readouterr().out.count("of peak") == 1
