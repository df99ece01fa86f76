"""Memory is counted before it is filled: the system kills a process that runs out, silently."""

from pathlib import Path

from sphere_jax.common.allocator import give_back
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import in_bytes

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")  # the limit of a container, under cgroup v2


def available_bytes() -> int | None:
    """Memory that this process can still have; None where it is unknown (not on Linux)."""
    give_back()
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
    """The cache of files that were read: it counts as used, but the system frees it on demand."""
    try:
        found = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        return int(found["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def check_fits(what: str, needed: int, fix: str) -> None:
    """Raises UserError if `needed` bytes are not available; `fix` says what to do instead."""
    available = available_bytes()
    if available is not None and needed > available:
        raise UserError(
            f"{what} would take {in_bytes(needed)} of memory and {in_bytes(available)} are "
            f"available; {fix}."
        )
