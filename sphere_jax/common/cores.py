"""How many processor cores this process may use."""

import os


def usable_cores() -> int:
    """Those that it is bound to (taskset, Slurm, containers with a cpuset), where that is known."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
