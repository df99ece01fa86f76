"""Interleaved timing: what the benchmarks that compare with PyTorch share."""

import argparse
import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timed import noted, reason

try:
    import torch
except ImportError:  # sphere_jax is then timed alone
    torch = None

STEADY = 0.03  # two turns of a contender that has warmed up differ by less, as a part of one


def add_flags(flags: argparse.ArgumentParser, rounds: int) -> None:
    """What all of them take: `rounds` is the default."""
    flags.add_argument("--rounds", type=int, default=rounds)
    flags.add_argument("--seconds", type=float, default=0.5, help="least time of a turn")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="1 pins the process to one core and counts processor time, not wall time: fair on a "
        "machine that others use; default: all cores, wall time",
    )


def start(args: argparse.Namespace) -> Callable[[], float]:
    """Limits both frameworks to `args.threads` cores and prints what runs where; returns the
    function to time with. Call it before any jax work: XLA sizes its thread pool when it starts."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-args.threads :])
    if torch:
        torch.set_num_threads(args.threads)
    other = f"torch {torch.__version__}" if torch else "torch is not installed: sphere_jax alone"
    kind = "processor time" if args.threads == 1 else "wall time"
    print(f"jax {jax.__version__} on {jax.default_backend()}, {other}")
    print(f"{args.threads} threads, {kind}, seed {args.seed}", flush=True)
    return time.process_time if args.threads == 1 else time.perf_counter


def time_rounds(
    contenders: dict[str, Callable[[], None]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = 0.5,
    deadline: float = math.inf,
    warm_up: float = 0.0,
    failed: dict[str, str] | None = None,
    times: dict[str, list[float]] | None = None,
    settle: int = 0,
) -> dict[str, list[float]]:
    """Seconds per call of each contender in each round.

    Every contender runs in every round, so that a disturbance of the machine hits all alike; the
    order turns by one each round. A contender is called often enough to fill `seconds`. Each must
    block until its work is done.

    Args:
      deadline: no turn begins after it, by `time.monotonic`. A contender that has had none by then
        has that of its warm-up, and one that has not been called is left out.
      warm_up: two calls of each are made first (compilation), and then turns until two in a row
        differ by less than `STEADY`, for so many seconds at most.
      failed: gets why a contender has not had its turns: it keeps those that it had, and the others
        go on. Without it errors are raised.
      times: is filled and returned, for those who need what there is before the end.
      settle: so many calls at the start of each turn are not timed. The first one after a turn of
        another contender may be slower than any in a run of steps: the host of a virtual machine
        takes back memory that was free for some seconds.
    """
    times = {} if times is None else times
    calls, alone = {}, {}

    def turn(name: str) -> float:
        for _ in range(settle):
            contenders[name]()
        start = clock()
        for _ in range(calls[name]):
            contenders[name]()
        return (clock() - start) / calls[name]

    def guarded(name: str) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if failed is None else noted(failed, name)

    for name, call in contenders.items():
        with guarded(name):
            if time.monotonic() > deadline:
                raise TimeoutError("the time was over before its turn")
            call()
            calls[name] = 1
            alone[name] = turn(name)
            times[name] = []
            calls[name] = max(1, round(seconds / max(alone[name], 1e-6)))
            until, last = min(deadline, time.monotonic() + warm_up), math.inf
            while time.monotonic() < until and abs(last - alone[name]) >= STEADY * alone[name]:
                last, alone[name] = alone[name], turn(name)
    running = list(times)
    for number in range(rounds if running else 0):
        for name in running[number % len(running) :] + running[: number % len(running)]:
            if time.monotonic() > deadline or name in (failed or ()):
                continue
            with guarded(name):
                times[name].append(turn(name))
    for name, own in times.items():
        if not own:
            own.append(alone[name])
            if failed is not None:
                failed.setdefault(name, "no round: its number is of the warm-up")
    return times


def matmul_peak(clock: Callable[[], float], seconds: float, size: int = 1024) -> float:
    """FLOP/s of the fastest float32 square matmul seen, in either framework."""
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    x = jnp.asarray(a)
    product = jax.jit(jnp.dot)
    contenders = {"jax": lambda: product(x, x).block_until_ready()}
    if torch:
        y = torch.from_numpy(a)
        contenders["torch"] = lambda: y @ y
    times = time_rounds(contenders, 10, clock, seconds)
    return 2 * size**3 / min(map(min, times.values()))


def add_compiled(contenders: dict, make: Callable[[], Callable[[], None]]) -> None:
    """Adds torch.compile, or prints why it does not work here."""
    try:
        call = make()
        call()
    except Exception as error:  # whatever its C++ toolchain raises
        print(f"torch.compile does not work here: {reason(error)}")
    else:
        contenders["torch.compile"] = call


def spread(values: list[float], form: str) -> str:
    """min / median / max."""
    numbers = min(values), statistics.median(values), max(values)
    return " / ".join(form.format(number) for number in numbers)


def report(title: str, times: dict[str, list[float]], flops: float, peak: float) -> None:
    """Milliseconds, share of the peak, and how many times faster the first contender is."""
    first = next(iter(times))
    print(f"\n{title}: {flops / 1e9:.1f} GFLOP; min / median / max over rounds")
    for name, seconds in times.items():
        ratios = [other / own for other, own in zip(seconds, times[first], strict=True)]
        print(
            f"  {name:<14}{spread([1e3 * s for s in seconds], '{:.0f}'):>22} ms"
            f"{flops / statistics.median(seconds) / peak:6.0%} of peak"
            + ("" if name == first else f"   {first} is {spread(ratios, '{:.2f}')} x as fast"),
            flush=True,
        )
