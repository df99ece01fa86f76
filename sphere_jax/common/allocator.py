"""How a process on Linux takes memory for large arrays.

XLA takes new memory for the activations of every step on a CPU, and the C library takes it from the
kernel, which clears it: a tenth of a training step (docs/performance.md#memory). mimalloc keeps
memory that is freed, for a minute. Without it, pages of 2 MiB are at least cleared more quickly
than those of 4 KiB. Both must be asked for when a process starts, in its environment.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "cmeel.prefix/lib/libmimalloc.so"  # of the package cmeel-mimalloc, beside others
KEPT = "60000"  # ms until mimalloc gives unused memory back: some hundred steps, not all of a run
VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
OLDEST = (2, 35)  # glibc that knows TUNABLE
STATE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_allocator() -> None:
    """Replaces this process, once, by one with the same command and `settings(os.environ)`."""
    if chosen := settings(os.environ):
        environment = os.environ | chosen
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def settings(environment: os._Environ | dict[str, str]) -> dict[str, str]:
    """What to add to the environment of a process; {} where nothing is to be gained.

    LD_PRELOAD that is set, even to nothing, leaves the allocator as it is; so does a GPU or TPU
    that may be used, whose libraries have not been tried with mimalloc. A choice of
    `glibc.malloc.hugetlb`, or a kernel that always or never gives huge pages, leaves the pages.
    Both stay for another C library.
    """
    if _glibc() < OLDEST:
        return {}
    library = None if "LD_PRELOAD" in environment or not _cpu_alone(environment) else _mimalloc()
    chosen = {}
    if library:
        chosen |= {"LD_PRELOAD": library}
        chosen |= {} if "MIMALLOC_PURGE_DELAY" in environment else {"MIMALLOC_PURGE_DELAY": KEPT}
    if TUNABLE not in (tunables := environment.get(VARIABLE, "")) and _on_request():
        chosen |= {VARIABLE: ":".join(filter(None, (tunables, f"{TUNABLE}=1")))}
    return chosen


def _cpu_alone(environment: os._Environ | dict[str, str]) -> bool:
    platforms = environment.get("JAX_PLATFORMS")
    return platforms == "cpu" or not (platforms or find_spec("jax_plugins") or find_spec("libtpu"))


def _mimalloc() -> str | None:
    """Its file, if the loader can read its name: a space or a colon ends a name in LD_PRELOAD."""
    files = (Path(folder or ".").absolute() / LIBRARY for folder in sys.path)
    found = next((str(file) for file in files if file.is_file()), "")
    return found if found and not set(found) & set(" :") else None


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
