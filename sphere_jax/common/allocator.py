"""How a process on Linux takes memory for large arrays.

XLA takes new memory for the activations of every step on a CPU, and the C library takes it from the
kernel, which clears it: a tenth of a training step (docs/performance.md#memory). mimalloc keeps
memory that is freed, for about a minute. Both it and the C library ask the kernel for pages of
2 MiB, which are cleared more quickly than those of 4 KiB. A process must be told by its environment
when it starts.
"""

import ctypes
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "cmeel.prefix/lib/libmimalloc.so"  # of the package cmeel-mimalloc, beside others
KEPT = "60000"  # ms until mimalloc gives unused memory back: a few hundred steps, not a whole run
VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
OLDEST = (2, 35)  # glibc that knows TUNABLE
STATE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
RESTARTED = "SPHERE_JAX_RESTARTED"  # the process that has started anew, which keeps its id
PLUG_INS = ("PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH")  # variables by which JAX finds some


def restart_with_allocator() -> None:
    """Replaces this process, once, by one with the same command and `settings(os.environ)`; not a
    program that Python reads from its standard input or a pipe, which cannot be read again."""
    process = str(os.getpid())
    if os.environ.get(RESTARTED) == process:
        return  # once: an environment may have lost LD_PRELOAD on its way
    program = getattr(sys.modules["__main__"], "__file__", "")
    readable = "-c" in sys.orig_argv or os.path.isfile(program)
    if readable and (chosen := settings(os.environ)):
        environment = os.environ | chosen | {RESTARTED: process}
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def settings(environment: os._Environ | dict[str, str]) -> dict[str, str]:
    """What to add to the environment of a process; {} where nothing is to be gained.

    LD_PRELOAD that is set, even to nothing, leaves the allocator as it is; so does a GPU or TPU
    that may be used, whose libraries have not been run with mimalloc. A choice of
    `glibc.malloc.hugetlb`, or a kernel that always or never gives huge pages, leaves the pages.
    Both stay for another C library.
    """
    if not (version := _glibc()):
        return {}
    chosen, tunables = {}, environment.get(VARIABLE, "")
    if "LD_PRELOAD" not in environment and _cpu_alone(environment) and (library := _mimalloc()):
        small = {"MIMALLOC_ALLOW_THP": "0"} if f"{TUNABLE}=0" in tunables else {}
        wanted = {"MIMALLOC_PURGE_DELAY": KEPT} | small
        chosen = {name: value for name, value in wanted.items() if name not in environment}
        chosen["LD_PRELOAD"] = library
    if TUNABLE not in tunables and version >= OLDEST and _on_request():
        chosen[VARIABLE] = ":".join(filter(None, (tunables, f"{TUNABLE}=1")))
    return chosen


def give_back() -> None:
    """Returns memory that this process has freed to the system, where mimalloc keeps it."""
    if "libmimalloc" in os.environ.get("LD_PRELOAD", ""):
        with suppress(AttributeError):  # the loader has ignored it
            ctypes.pythonapi.mi_collect(True)  # of this process, without opening a library anew


def _cpu_alone(environment: os._Environ | dict[str, str]) -> bool:
    if platforms := environment.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    others = any(map(find_spec, ("jax_plugins", "libtpu")))
    return not (others or any(name in environment for name in PLUG_INS))


def _mimalloc() -> str | None:
    """Its file, if the loader can read its name: a space or a colon ends a name in LD_PRELOAD."""
    files = (os.path.join(os.path.abspath(folder), LIBRARY) for folder in sys.path)
    found = next(filter(os.path.isfile, files), "")  # also of folders that may not be searched
    return found if found and not set(found) & set(" :") else None


def _on_request() -> bool:
    try:
        return "[madvise]" in STATE.read_text()
    except OSError:
        return False


def _glibc() -> tuple[int, ...]:
    """(2, 36), say; () for another C library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split("."))) if name == "glibc" else ()
    except (AttributeError, OSError, ValueError):
        return ()
