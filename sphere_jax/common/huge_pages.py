"""Huge pages for the large arrays of a process on Linux.

XLA takes new memory for the activations of every step on a CPU. In pages of 4 KiB, which the kernel
clears one by one, that is about a sixth of a training step (docs/performance.md#memory-pages). The
C library asks for huge pages if an environment variable says so when the process starts.
"""

import os
import sys
from pathlib import Path

VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
OLDEST = (2, 35)  # glibc that knows TUNABLE
STATE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Replaces this process, once, by one with the same command and huge pages.

    Returns where they bring nothing: the variable is set already (`glibc.malloc.hugetlb=0` keeps
    small pages), the kernel always or never gives huge ones, or the C library is another.
    """
    tunables = os.environ.get(VARIABLE, "")
    if TUNABLE in tunables or not _on_request() or _glibc() < OLDEST:
        return
    chosen = f"{TUNABLE}=1"
    environment = os.environ | {VARIABLE: f"{tunables}:{chosen}" if tunables else chosen}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _on_request() -> bool:
    try:
        return "[madvise]" in STATE.read_text()
    except OSError:
        return False


def _glibc() -> tuple[int, ...]:
    """(2, 36), say; (0,) for another C library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split("."))) if name == "glibc" else (0,)
    except (OSError, ValueError):
        return (0,)
