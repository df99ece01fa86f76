"""What is held in memory is counted first: a process that runs out is killed without a word."""

from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import in_bytes

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")  # the limit of a container, under cgroup v2


def available_bytes() -> int | None:
    """Memory that this process can still have; None where the system does not say (not Linux)."""
    try:
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None
    try:
        limit, used = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return free
    return min(free, max(limit - used + _droppable_bytes(), 0))


def _droppable_bytes() -> int:
    """Of files that were read: what the system keeps of them counts as used, and gives way."""
    try:
        found = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        return int(found["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def check_fits(what: str, needed: int, mend: str) -> None:
    """Raises UserError if `needed` bytes are not available; `mend` says what to do instead."""
    available = available_bytes()
    if available is not None and needed > available:
        raise UserError(
            f"{what} would take {in_bytes(needed)} of memory and {in_bytes(available)} are "
            f"available; {mend}."
        )
