"""Where the time of a train step goes beside computing: pages of memory, and idle cores. Linux.

    python -m benchmarks.step_pages --rounds 5 --seconds 3 --no_compile

The steps of `benchmarks.train_step`, ours and PyTorch's in turns of two steps or more: medians of
the first steps and of the later ones. User and system time are of all threads, idle is the mean of
the cores. "huge pages": of 2 MiB, that the kernel gave, of the whole machine. "taken back": what
the host of a virtual machine took of its free memory since the last step of the same contender.
"""

import argparse
import itertools
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import rounds, sit_cases, smoke
from benchmarks.train_step import jax_step, torch_step
from sphere_jax.cli import run_command

TAKEN_BACK = Path("/sys/module/page_reporting/parameters/reported_kib")  # of few kernels
COLUMNS = ["wall ms", "user ms", "system ms", "idle ms", "huge pages"]
COLUMNS += ["taken back, MiB"] if TAKEN_BACK.is_file() else []


def main(argv: list[str]) -> None:
    args = smoke.parse(sit_cases.flags(__doc__.splitlines()[0]), argv, lambda: sit_cases.SMOKE)
    rounds.start(args)
    for tokens in args.tokens:
        case = sit_cases.make_case(args, tokens)
        contenders = sit_cases.contenders_for(case, jax_step, torch_step, not args.no_compile)
        print(f"\n{tokens} tokens{'':17}{''.join(f'{name:>16}' for name in COLUMNS)}")
        for name, (first, later) in found(contenders, args).items():
            for place, row in (("first step", first), ("later steps", later)):
                print(f"{name:13}{place:13}{''.join(f'{value:16.0f}' for value in row)}")


def found(contenders: dict[str, Callable], args: argparse.Namespace) -> dict[str, tuple]:
    """Of each contender, the medians over turns: the first step of a turn, and the later ones."""
    ends = {}
    for name, call in contenders.items():
        call()
        ends[name] = taken_back()
    steps = {name: ([], []) for name in contenders}
    for _, (name, call) in itertools.product(range(args.rounds), contenders.items()):
        start, (first, later) = time.perf_counter(), steps[name]
        for number in itertools.count():
            if number > 1 and time.perf_counter() - start > args.seconds:
                break
            before = times()
            call()
            row = [b - a for a, b in zip(before, times(), strict=True)]
            idle, taken = max(0.0, row[0] - (row[1] + row[2]) / args.threads), taken_back()
            (later if number else first).append((*row[:3], idle, row[3], taken - ends[name]))
            ends[name] = taken
    return {name: tuple(map(medians, both)) for name, both in steps.items()}


def medians(rows: list[tuple]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)][: len(COLUMNS)]


def times() -> tuple[float, ...]:
    """Wall, user and system milliseconds of this process, and huge pages of the machine."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    kernel = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    seconds = (time.perf_counter(), used.ru_utime, used.ru_stime)
    return (*(1e3 * s for s in seconds), int(kernel.get("thp_fault_alloc", 0)))


def taken_back() -> float:
    """MiB since the machine started; 0 where the kernel does not say."""
    return int(TAKEN_BACK.read_text()) / 1024 if TAKEN_BACK.is_file() else 0.0


if __name__ == "__main__":
    run_command(main)
