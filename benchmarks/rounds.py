"""Interleaved timing: what the benchmarks share."""

import statistics
import time
from collections.abc import Callable


def time_rounds(
    contenders: dict[str, Callable[[], None]], rounds: int, seconds: float = 0.5
) -> dict[str, list[float]]:
    """Seconds per call of each contender in each round.

    Every contender runs in every round, so that a disturbance of the machine hits all alike; the
    order turns by one each round. A contender is called often enough to fill `seconds`. Each must
    block until its work is done. One call of each is made first, untimed (compilation).
    """
    calls = {}
    for name, call in contenders.items():
        call()
        start = time.perf_counter()
        call()
        calls[name] = max(1, round(seconds / (time.perf_counter() - start)))
    times = {name: [] for name in contenders}
    for turn in range(rounds):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            for _ in range(calls[name]):
                contenders[name]()
            times[name].append((time.perf_counter() - start) / calls[name])
    return times


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """min / median / max."""
    numbers = min(values), statistics.median(values), max(values)
    return " / ".join(form.format(number) for number in numbers)


def report(title: str, times: dict[str, list[float]], flops: float, peak: float) -> None:
    """One table: milliseconds, how many times faster the first contender is, share of the peak."""
    first = next(iter(times))
    print(f"\n{title}: {flops / 1e9:.1f} GFLOP; min / median / max over rounds")
    for name, seconds in times.items():
        ratios = [other / own for other, own in zip(seconds, times[first], strict=True)]
        print(
            f"  {name:<16} {spread([1e3 * s for s in seconds], '{:.1f}'):>24} ms"
            f"   {flops / statistics.median(seconds) / peak:5.0%} of peak"
            + ("" if name == first else f"   {first} is {spread(ratios)} x as fast"),
            flush=True,
        )
