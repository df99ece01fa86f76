"""Interleaved timing: what the benchmarks share."""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256])
    options.add_argument("--width", type=int, default=192)
    options.add_argument("--depth", type=int, default=6)
    options.add_argument("--heads", type=int, help="default: head dimension 64, as all SiT sizes")
    options.add_argument("--batch", type=int, help="default: 2048 tokens a batch")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count(),
        help="1 pins the process to one core and counts processor time, not wall time: fair on a "
        "machine that others use; default: all cores, wall time",
    )
    options.add_argument("--no_compile", action="store_true", help="leave torch.compile out")
    return options


def limit_threads(threads: int) -> Callable[[], float]:
    """Holds both frameworks to `threads` cores; the clock to time with. Call before any jax work,
    since XLA sizes its thread pool when it starts."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-threads:])
    torch.set_num_threads(threads)
    return time.process_time if threads == 1 else time.perf_counter


def time_rounds(
    contenders: dict[str, Callable[[], None]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = 0.5,
) -> dict[str, list[float]]:
    """Seconds per call of each contender in each round.

    Every contender runs in every round, so that a disturbance of the machine hits all alike; the
    order turns by one each round. A contender is called often enough to fill `seconds`. Each must
    block until its work is done. Two calls of each are made first (compilation).
    """
    calls = {}
    for name, call in contenders.items():
        call()
        start = clock()
        call()
        calls[name] = max(1, round(seconds / max(clock() - start, 1e-6)))
    times = {name: [] for name in contenders}
    for turn in range(rounds):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            for _ in range(calls[name]):
                contenders[name]()
            times[name].append((clock() - start) / calls[name])
    return times


def matmul_peak(clock: Callable[[], float], size: int = 1024) -> float:
    """FLOP/s of the fastest float32 square matmul seen, in either framework."""
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    x, y = jnp.asarray(a), torch.from_numpy(a)
    product = jax.jit(jnp.dot)
    contenders = {"jax": lambda: product(x, x).block_until_ready(), "torch": lambda: y @ y}
    times = time_rounds(contenders, 10, clock, 0.1)
    return 2 * size**3 / min(min(seconds) for seconds in times.values())


def forward_flops(tokens: int, channels: int, width: int, depth: int) -> float:
    """Matmul FLOPs of SiT on one image: block linears, attention, adaLN, patches, time, head."""
    block = tokens * (2 * 12 * width**2 + 4 * tokens * width) + 2 * 6 * width**2
    ends = tokens * 2 * 2 * channels * width + 2 * (256 + width + 2 * width) * width
    return depth * block + ends


def start(args: argparse.Namespace) -> tuple[Callable[[], float], float]:
    """Limits the threads, measures the peak, prints what runs where; the clock and the peak."""
    clock = limit_threads(args.threads)
    peak = matmul_peak(clock)
    kind = "processor time" if args.threads == 1 else "wall time"
    print(f"jax {jax.__version__} on {jax.default_backend()}, torch {torch.__version__}")
    print(f"{args.threads} threads, {kind}, seed {args.seed}; peak {peak / 1e9:.0f} GFLOP/s")
    return clock, peak


def add_compiled(contenders: dict, make: Callable[[], Callable[[], None]], wanted: bool) -> None:
    """Adds torch.compile, or says why it is missing."""
    if not wanted:
        return
    try:
        call = make()
        call()
    except Exception as error:  # whatever its C++ toolchain raises
        print(f"torch.compile is not possible here: {str(error).splitlines()[0]}")
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
