"""Commands that start at once, in processes forked from one that has imported everything."""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import tiny_run

DRILLS = tiny_run.ROOT / "tests" / "drills"
QUICK = (  # of tests/conftest.py
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)


class Nursery:
    """`prefix`: what runs the nursery itself."""

    def __init__(self, folder: Path, *prefix: str):
        self._folder, self._started = folder, 0
        place = f"{tiny_run.ROOT}{os.pathsep}{DRILLS}"
        env = tiny_run.environment(
            XLA_FLAGS=os.environ.get("XLA_FLAGS", QUICK),
            PYTHONPATH=place,
            TF_CPP_MIN_LOG_LEVEL="3",  # as launch/ sets it
        )
        line = [*prefix, sys.executable, str(DRILLS / "nursery.py")]
        self.process = subprocess.Popen(
            line, cwd=tiny_run.ROOT, env=env, stdin=-1, stdout=-1, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def _ask(self, **what) -> int:
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, *argv, hooks=(), piped: bool = False, **env) -> tuple[int, Path]:
        """The id of a new process, and where what it prints goes: with the suffixes out and err.
        `piped`: it waits for a reader of the former."""
        self._started += 1
        out = self._folder / str(self._started)
        if piped:
            os.mkfifo(f"{out}.out")
        process = self._ask(argv=list(map(str, argv)), env=env, out=str(out), hooks=list(hooks))
        return process, out

    def end(self, process: int, out: Path, piped: bool = False) -> tuple[int, str, str]:
        """Exit code, output and errors of a process that was started, when it has ended."""
        code = self._ask(end=process)
        printed = "" if piped else Path(f"{out}.out").read_text()
        return code, printed, Path(f"{out}.err").read_text()

    def run(self, *argv, hooks=(), **env) -> tuple[int, str, str]:
        return self.end(*self.start(*argv, hooks=hooks, **env))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@functools.cache
def shared() -> Nursery:
    """One for all tests of this process."""
    folder = tempfile.mkdtemp(prefix="nursery")
    found = Nursery(Path(folder))
    atexit.register(shutil.rmtree, folder)
    atexit.register(found.close)
    return found


class Command:
    """One from `shared`, with as much of `subprocess.Popen` as tests need."""

    def __init__(self, *argv, devices: int = 1, hooks=(), **env):
        flags = tiny_run.environment(devices)["XLA_FLAGS"]
        self._nursery, self.returncode = shared(), None
        self.pid, self._out = self._nursery.start(
            *argv, hooks=hooks, piped=True, XLA_FLAGS=flags, **env
        )
        self.stdout = open(f"{self._out}.out")  # noqa: SIM115

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it prints from now on, and its errors; it is killed after `timeout` seconds."""
        late = threading.Timer(timeout, self.kill)
        late.start()
        with self.stdout as pipe:
            printed = pipe.read()
        self.returncode, _, errors = self._nursery.end(self.pid, self._out, piped=True)
        late.cancel()
        return printed, errors
