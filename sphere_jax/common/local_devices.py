"""Which GPUs of its node a process of a Slurm or MPI job uses.

JAX gives each task one GPU, the one with the task's number on its node: one task a node would use
one GPU of eight. Here the tasks of a node share all GPUs that they see.
"""

import os
import re
from collections.abc import Mapping

from sphere_jax.common.errors import UserError


def local_devices(
    given: list[int] | None, environment: Mapping[str, str] = os.environ
) -> list[int] | None:
    """The GPUs of this process, numbered as it sees them; None: all that it sees.

    `given` is JAX's own answer, used where the number of GPUs is not known and several tasks run on
    this node. A GPU is taken to be a task's own if it does not see all of its node's.

    Raises:
      UserError: the GPUs cannot be shared evenly among the tasks of this node.
    """
    if given is None:  # no tasks that could share a host, as on TPU
        return None
    tasks, task = _tasks_of_node(environment)
    if tasks == 1:
        return None
    visible = _count(environment.get("CUDA_VISIBLE_DEVICES", ""))
    of_node = int(environment.get("SLURM_GPUS_ON_NODE", "0") or 0) or visible
    if not of_node:
        return given
    if visible and visible < of_node:  # bound by --gpus-per-task or --gpu-bind
        return None
    if of_node % tasks:
        raise UserError(
            f"{tasks} tasks on this node cannot share its {of_node} GPUs evenly; start one task a "
            "node (--ntasks-per-node=1), which uses all of them, or one a GPU."
        )
    share = of_node // tasks
    return list(range(task * share, (task + 1) * share))


def _tasks_of_node(environment: Mapping[str, str]) -> tuple[int, int]:
    """The number of tasks on this node, and of this one among them; (1, 0) where nothing says."""
    if "SLURM_LOCALID" in environment:
        text = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get(
            "SLURM_TASKS_PER_NODE", "1"
        )
        counts = []
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):  # as in "8(x2),4"
            counts += [int(count)] * int(times or 1)
        node = int(environment.get("SLURM_NODEID", "0"))
        return counts[min(node, len(counts) - 1)], int(environment["SLURM_LOCALID"])
    return (
        int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")),
        int(environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "0")),
    )


def _count(devices: str) -> int:
    return len([name for name in devices.split(",") if name.strip()])
