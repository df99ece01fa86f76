"""Part `kernels` of `benchmarks.accelerator`: the kernels that take most of the device's time."""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.accelerator_speed import KINDS, make_case, ours
from benchmarks.timed import noted

SHOWN = 12
CASES = {"train": "sit_b", "sample": "sit_xl"}  # a key of KINDS for each kind of work


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--profiled", nargs="+", choices=list(CASES), default=list(CASES))


def kernels(args: argparse.Namespace, deadline: float, found: dict[str, Any]) -> None:
    """Milliseconds a step of every kernel; on a CPU there are none."""
    failed = found["failed"] = {}
    for work in args.profiled:
        with noted(failed, work):
            if time.monotonic() > deadline:
                raise TimeoutError("the time was over before it")
            found[work] = _busy(work, args)


def _busy(work: str, args: argparse.Namespace) -> dict[str, float]:
    kind = CASES[work]
    case = make_case(KINDS[kind], args, args.batch or KINDS[kind].batch[work])
    call, steps = ours(work, case, args), args.repeats if work == "train" else args.steps
    call()
    found = {name: 1e-6 * ns / steps for name, ns in _profile(call).most_common()}
    print(f"{KINDS[kind].title}, {work}: {sum(found.values()):.2f} ms of kernels a step")
    for name, ms in list(found.items())[:SHOWN]:
        print(f"  {ms:9.3f} ms  {name[:90]}", flush=True)
    return found


def _profile(call: Callable[[], Any]) -> Counter[str]:
    """Nanoseconds of each kernel during one call, on the first device."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
        lines = [line for plane in profile.planes if plane.name == "/device:GPU:0"
                 for line in plane.lines if line.name.startswith("Stream")]  # fmt: skip
        busy: Counter[str] = Counter()
        for event in (event for line in lines for event in line.events):
            busy[event.name] += int(event.duration_ns)
    return busy
