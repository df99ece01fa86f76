"""What drills change in a process before its command runs.

`python hooks.py PLACE CALL SIGNAL COMMAND FLAGS` runs a command with `signal_in`, for several
processes, which a nursery cannot fork.
"""

import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
import time

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
PHASES = {  # by functions that are being called
    "sphere_jax.training.checkpoints:Checkpoints.save": "saving",
    "sphere_jax.training.checkpoints:Checkpoints.wait": "saving",
    "sphere_jax.training.pending_save:PendingSave._run": "saving",
    "sphere_jax.runs.scoring:Scorer.point_of_curve": "scoring",
    "sphere_jax.runs.scoring:score_run": "scoring",
}


def quick_peak() -> None:
    """No matrix products are timed for the utilisation, as in tests/conftest.py."""
    from sphere_jax.runs import stages

    stages.measure_peak_flops = lambda dtype: 1e9


def count(folder: str, file: str) -> None:
    """Notes every change of files below `folder`, one a line."""
    notes = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    _at_changes(folder, lambda number, what: os.write(notes, f"{what}\n".encode()))


def kill_at(folder: str, last: int, milliseconds: float, file: str, aim: str = "") -> None:
    """Kills this process so long after the change number `last` of files below `folder`, of which
    there are some at each start, step, save and drawing; with `aim`, a value of `PHASES`, once it
    is in that phase then. `file` takes the change, and after a bar the phases."""

    def end(what: str) -> None:
        if aim:
            _wait_for(aim)
        time.sleep(milliseconds / 1000)
        found = _wait_for(aim) if aim else _phases()
        note = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(note, f"{what} | {' '.join(sorted(found))}".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def changed(number: int, what: str) -> None:
        if number == last:
            apart = milliseconds or aim
            threading.Thread(target=end, args=(what,)).start() if apart else end(what)

    _at_changes(folder, changed)


def _wait_for(phase: str) -> set[str]:
    while phase not in (found := _phases()):
        time.sleep(0.0005)
    return found


def _phases() -> set[str]:
    """What the threads of this process are doing."""
    found = set()
    # Python lists them under a lock that new threads wait for with the GIL. A collection meanwhile
    # would let go of the GIL, in JAX's callback, and never get it back.
    gc.disable()
    frames = sys._current_frames()
    gc.enable()
    for frame in frames.values():
        while frame is not None:
            place = f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}"
            found |= {PHASES[place]} if place in PHASES else set()
            frame = frame.f_back
    return found


def reads(folder: str, file: str) -> None:
    """Notes every file below `folder` that is opened to be read, one a line."""
    notes = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def heard(event: str, arguments: tuple) -> None:
        if event != "open" or not isinstance(arguments[0], str):
            return
        writes = isinstance(arguments[2], int) and arguments[2] & WRITES
        if arguments[0].startswith(folder) and not writes:
            os.write(notes, f"{os.path.relpath(arguments[0], folder)}\n".encode())

    sys.addaudithook(heard)


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

    def then() -> None:
        print(f"signal {number} in {place}", flush=True)
        os.kill(os.getpid(), number)

    _at_call(place, call, then)


def read_only_in(place: str, call: int, folder: str) -> None:
    """Makes the file system at `folder` read-only at a call of a function."""

    def then() -> None:
        print(f"read-only in {place}", flush=True)
        cover(folder)

    _at_call(place, call, then)


def _at_call(place: str, call: int, then) -> None:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def hooked(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            then()
        return original(*arguments, **options)

    setattr(owner, name, hooked)


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


def cover(folder: str) -> None:
    """Mounts what is at `folder` over itself, read-only: what is opened from now on cannot be
    written. (The kernel remounts no file system, unless an error forces it to, while files are open
    for writing.)"""
    for line in (("--bind", folder, folder), ("-o", "remount,bind,ro", folder)):
        subprocess.run(["mount", *line], check=True)


def uncover(folder: str) -> None:
    """Ends `cover`."""
    subprocess.run(["umount", folder], check=True)


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


def main(place: str, call: str, number: str, command: str, *flags: str) -> None:
    from sphere_jax.cli import run_command

    quick_peak()
    signal_in(place, int(call), int(number))
    sys.argv = [command, *flags]
    run_command(importlib.import_module(f"sphere_jax.{command}").main)


if __name__ == "__main__":
    main(*sys.argv[1:])
