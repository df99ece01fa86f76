"""Ctrl-C and SIGTERM: one sentence and exit code 130, whatever the command is doing."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_run

from sphere_jax.common import interruption
from sphere_jax.common.interruption import held

SCRIPT = """
import ctypes, sys, time
from sphere_jax import cli
from sphere_jax.common import interruption
cli._set_precision = lambda: None  # imports jax
interruption.PATIENCE = 0.6
sys.argv = ["command"]

def main(_):
    print("ready", flush=True)
    {body}

cli.run_command(main)
"""
BODIES = {
    "python": "time.sleep(60)",
    "swallowed": "\n    ".join(
        ["try: time.sleep(60)", "except BaseException: pass", "time.sleep(60)"]
    ),
    "garbage collection": "\n    ".join(
        ["import gc", "gc.callbacks.append(lambda *_: time.sleep(0.5))", "gc.collect()"] * 2
        + ["time.sleep(60)"]
    ),
    "compiled code": "[ctypes.CDLL(None).sleep(60) for _ in range(9)]",
    "import": "import slow_module",
}
SLOW_MODULE = """
import time
try: time.sleep(60)
except BaseException as error: raise ImportError("as extensions do") from error
"""


def start(body: str, **more: str) -> subprocess.Popen:
    line = [sys.executable, "-c", SCRIPT.format(body=body)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(line, cwd=tiny_run.ROOT, env=os.environ | more, **pipes, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_signal_ends_a_command(body, tmp_path):
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    with start(body, PYTHONPATH=str(tmp_path)) as process:
        number = signal.SIGTERM if "except" in body else signal.SIGINT
        process.send_signal(number)
        _, err = tiny_run.finish(process, 130, timeout=20)
    assert err == f"{interruption.SENTENCE}\n"


def test_a_signal_that_ends_the_reader_of_the_output_too():
    """As Ctrl-C to `command 2>&1 | tee log`."""
    with start("sys.stdout.write('not flushed'); time.sleep(60)") as process:
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


@pytest.mark.parametrize("raises", [True, False], ids=["first", "second"])
def test_a_signal_while_the_end_is_told_to_others(raises):
    """Which takes up to a second: the exit code stays."""
    tell = "cli.peers.leave = lambda *_: (print('telling', flush=True), time.sleep(60))"
    body = f"{tell}; raise {'KeyboardInterrupt' if raises else 'cli.UserError(1)'}"
    with start(body) as process:
        assert process.stdout.readline() == "telling\n"
        process.send_signal(signal.SIGTERM)
        _, err = tiny_run.finish(process, 130 if raises else 2, timeout=20)
    assert "Traceback" not in err


def test_what_is_being_written_is_gone(tmp_path):
    """By a call that does not return, so that no `finally` is reached."""
    body = "\n    ".join(
        [
            "from sphere_jax.common.files import write_whole",
            "def fill(path):",
            "    path.write_text('half'); path.with_suffix('.more').write_text('half')",
            "    print('writing', flush=True); [ctypes.CDLL(None).sleep(60) for _ in range(9)]",
            f"write_whole({str(tmp_path / 'whole')!r}, fill, alone=True)",
        ]
    )
    with start(body) as process:
        assert process.stdout.readline() == "writing\n"
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGTERM)
        tiny_run.finish(process, 130, timeout=20)
    assert not list(tmp_path.iterdir())


def test_signals_are_handled_before_anything_slow_is_imported():
    """Importing JAX takes seconds; no command does so before `run_command`."""
    names = [file.stem for file in (tiny_run.ROOT / "sphere_jax").glob("[a-z]*.py")]
    assert {"main", "sample", "convert"} < set(names)
    lines = [f"import sphere_jax.{name}" for name in names]
    lines += ["import sys", "print({'jax', 'numpy'} & sys.modules.keys())"]
    line = [sys.executable, "-c", "\n".join(lines)]
    found = subprocess.run(line, cwd=tiny_run.ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_two_signals_end_a_command_that_saves_without_end():
    body = "\n    ".join(
        [
            "from sphere_jax.common.interruption import held",
            "with held(lambda: print('saving', flush=True), lambda: True):",
            "    print('held', flush=True)",
            "    while True:",
            "        try: time.sleep(60)",
            "        except KeyboardInterrupt: pass",
        ]
    )
    with start(body) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "saving\n"
        time.sleep(interruption.ONE + 1)
        assert process.poll() is None  # however long it takes
        process.send_signal(signal.SIGTERM)
        _, err = tiny_run.finish(process, 130, timeout=20)
    assert err == f"{interruption.SENTENCE}\n"


def test_a_held_signal_is_a_request(monkeypatch):
    """Signals that follow at once, as from a launcher, count as one."""
    monkeypatch.setattr(interruption._Held, "last", -100.0)
    requests, before = [], signal.getsignal(signal.SIGTERM)
    with held(lambda: requests.append("stop"), lambda: True):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert requests == ["stop"]
        interruption._Held.last -= 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before and requests == ["stop"]
    interruption._Held.last -= 1
    with held(lambda: requests.append("stop"), lambda: False), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
