"""Where the time of a train step goes beside computing: pages of memory, and idle cores. Linux.

    python -m benchmarks.step_pages --rounds 5 --seconds 3 --no_compile

The steps of `benchmarks.train_step`, ours and PyTorch's in turns of two steps or more: medians of
the first steps and of the later ones. "huge pages": of 2 MiB, that the kernel gave. "taken back":
what the host of a virtual machine took of its free memory meanwhile, where the kernel says so.
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

TAKEN_BACK = Path("/sys/module/page_reporting/parameters/reported_kib")
COLUMNS = ("wall ms", "user ms", "system ms", "idle ms", "huge pages", "taken back, MiB")


def main(argv: list[str]) -> None:
    args = smoke.parse(sit_cases.flags(__doc__.splitlines()[0]), argv, lambda: sit_cases.SMOKE)
    rounds.start(args)
    for tokens in args.tokens:
        case = sit_cases.make_case(args, tokens)
        contenders = {"sphere_jax": jax_step(case)}
        if rounds.torch:
            contenders["torch eager"] = torch_step(case, False)
            if not args.no_compile:
                rounds.add_compiled(contenders, lambda case=case: torch_step(case, True))
        print(f"\n{tokens} tokens{'':17}{''.join(f'{name:>16}' for name in COLUMNS)}")
        for name, (first, later) in found(contenders, args).items():
            for place, row in (("first step", first), ("later steps", later)):
                print(f"{name:13}{place:13}{''.join(f'{value:16.0f}' for value in row)}")


def found(contenders: dict[str, Callable], args: argparse.Namespace) -> dict[str, tuple]:
    """Of each contender, the medians over turns: the first step of a turn, and the later ones."""
    for call in contenders.values():
        call()
    steps = {name: ([], []) for name in contenders}
    for _, (name, call) in itertools.product(range(args.rounds), contenders.items()):
        start, (first, later) = time.perf_counter(), steps[name]
        for number in itertools.count():
            if number > 1 and time.perf_counter() - start > args.seconds:
                break
            before = counters()
            call()
            (later if number else first).append(spent(before, counters(), args.threads))
    return {name: tuple(map(medians, both)) for name, both in steps.items()}


def medians(rows: list[tuple]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def counters() -> tuple[float, ...]:
    """Wall, user and system milliseconds, huge pages, MiB that the host has taken back."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    kernel = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    taken = int(TAKEN_BACK.read_text()) / 1024 if TAKEN_BACK.is_file() else 0
    times = (time.perf_counter(), used.ru_utime, used.ru_stime)
    return (*(1e3 * t for t in times), int(kernel.get("thp_fault_alloc", 0)), taken)


def spent(before: tuple, after: tuple, cores: int) -> tuple[float, ...]:
    """A row of COLUMNS: idle is of one core."""
    wall, user, system, pages, taken = (b - a for a, b in zip(before, after, strict=True))
    return wall, user, system, max(0.0, wall - (user + system) / cores), pages, taken


if __name__ == "__main__":
    run_command(main)
