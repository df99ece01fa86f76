"""Several processes of one command, or of one script, over the loopback."""

import json
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tiny_run

HOOKS = tiny_run.ROOT / "tests" / "drills" / "hooks.py"


def launched(command, *flags, count=2, missing=(), killed=None, **more):
    """All processes but those of the numbers `missing`, of one command; four devices together.
    `killed`: the number of one that is killed, and in which call of which function
    (`hooks.signal_in`)."""
    number_killed, place, call = killed or (-1, "", 0)
    hooks = (HOOKS, place, call, int(signal.SIGKILL))
    address = f"127.0.0.1:{tiny_run.free_port()}"
    return [
        tiny_run.launch(
            command,
            *flags,
            devices=4 // count,
            before=hooks if number == number_killed else (),
            SPHERE_JAX_COORDINATOR=address,
            SPHERE_JAX_PROCESSES=str(count),
            SPHERE_JAX_PROCESS=str(number),
            TF_CPP_MIN_LOG_LEVEL="3",  # as launch/ sets it
            **more,
        )
        for number in range(count)
        if number not in missing
    ]


@contextmanager
def running(command, *flags, **more):
    """Those of `launched`, killed at the end."""
    processes = launched(command, *flags, **more)
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


def said(err: str) -> list[str]:
    """The lines of a process's stderr, without that of a slow machine."""
    return [line for line in err.splitlines() if "Waiting for the other processes" not in line]


def results(count: int, script: Path, *arguments: Any) -> list:
    """What each process of a script prints as JSON in its last line."""
    with running(script, *arguments, count=count, PYTHONPATH=str(tiny_run.ROOT)) as processes:
        ends = [process.communicate(timeout=400) for process in processes]
    assert not any(process.returncode for process in processes), ends
    return [json.loads(output.splitlines()[-1]) for output, _ in ends]
