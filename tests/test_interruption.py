"""Ctrl-C and SIGTERM: one sentence and exit code 130, whatever the command is doing."""

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
}


def start(body: str) -> subprocess.Popen:
    line = [sys.executable, "-c", SCRIPT.format(body=body)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(line, cwd=tiny_run.ROOT, **pipes, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_signal_ends_a_command(body):
    with start(body) as process:
        number = signal.SIGTERM if "except" in body else signal.SIGINT
        process.send_signal(number)
        _, err = tiny_run.finish(process, 130, timeout=20)
    assert err == f"{interruption.SENTENCE}\n"


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
