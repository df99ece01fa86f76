"""Progress of long work, on the screen of the first process."""

import math
import time

from sphere_jax.common.processes import is_main_process

INTERVAL = 10.0  # seconds from one line to the next; shorter work logs nothing


def log(line: str) -> None:
    """A line on the screen, from the first process only."""
    if is_main_process():
        print(line, flush=True)


def duration(seconds: float) -> str:
    """75 -> '1:15', 3700 -> '1:01:40'."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """Progress of `total` items; `what` names them in the log."""

    def __init__(self, what: str, total: int, unit: str = "img/s"):
        self._what, self._total, self._unit = what, total, unit
        self._started = self._logged = time.monotonic()

    def done(self, count: int) -> None:
        """`samples 1,234/5,000  24.1 img/s  2:36 left`, where a line is due; `count` are all."""
        now = time.monotonic()
        if now - self._logged < INTERVAL:
            return
        self._logged, rate = now, count / (now - self._started)
        left = duration((self._total - count) / rate if rate else math.inf)
        log(f"{self._what} {count:,}/{self._total:,}  {rate:,.1f} {self._unit}  {left} left")
