"""What drills change in a process before its command runs."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def quick_peak() -> None:
    """No matrix products are timed for the utilisation, as in tests/conftest.py."""
    from sphere_jax.runs import stages

    stages.measure_peak_flops = lambda dtype: 1e9


def count(folder: str, file: str) -> None:
    """Notes every change of files below `folder`, one a line."""
    notes = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    _at_changes(folder, lambda number, what: os.write(notes, f"{what}\n".encode()))


def kill_at(folder: str, last: int, milliseconds: float, file: str) -> None:
    """Kills this process so long after the change number `last` of files below `folder`, of which
    there are some at each start, step, save and drawing."""

    def end() -> None:
        time.sleep(milliseconds / 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    def changed(number: int, what: str) -> None:
        if number == last:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as note:
                note.write(what)
            threading.Thread(target=end).start() if milliseconds else end()

    _at_changes(folder, changed)


def _at_changes(folder: str, then) -> None:
    number, inside = 0, threading.local()

    def heard(event: str, arguments: tuple) -> None:
        nonlocal number
        if event == "open":
            changes = isinstance(arguments[2], int) and arguments[2] & WRITES
        else:
            changes = event in CHANGES
        if not changes or getattr(inside, "busy", False):
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes)) or not os.fsdecode(path).startswith(folder):
            return
        inside.busy = True
        number += 1
        then(number, f"{event} {os.path.relpath(os.fsdecode(path), folder)}")
        inside.busy = False

    sys.addaudithook(heard)


def signal_in(place: str, call: int, number: int) -> None:
    """Sends a signal at a call of a function, "package.module:Class.function"."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def signalled(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            print(f"signal {number} in {place}", flush=True)
            os.kill(os.getpid(), number)
        return original(*arguments, **options)

    setattr(owner, name, signalled)


def clock_goes_back(after: int) -> None:
    """By a year, after so many questions for the time; each answer is a little earlier."""
    now, asked = time.time, 0

    def earlier() -> float:
        nonlocal asked
        asked += 1
        return now() - (365 * 86400 + asked if asked > after else 0)

    time.time = earlier


def remount(folder: str, options: str) -> None:
    """Changes the file system that is mounted at `folder`: its size, or that it is read-only."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def memory(file: str, every: int) -> None:
    """Notes step, resident bytes and arrays that are alive, at some steps."""
    import jax

    from sphere_jax.training import step_log

    original = step_log.StepLog.add
    page = os.sysconf("SC_PAGE_SIZE")

    def add(self, step, metrics):
        if step % every == 0:
            with open("/proc/self/statm") as statm, open(file, "a") as notes:
                resident = int(statm.read().split()[1]) * page
                print(step, resident, len(jax.live_arrays()), file=notes)
        return original(self, step, metrics)

    step_log.StepLog.add = add
