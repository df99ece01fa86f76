"""Every GPU of a node is used by exactly one task, however Slurm or MPI starts the tasks."""

import os
import socket
import subprocess
import sys

import jax
import pytest
import tiny_run
from refusals import refusal_of

from sphere_jax.common import processes
from sphere_jax.common.local_devices import local_devices

EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "SLURM_GPUS_ON_NODE": "8"}


def slurm(tasks: int, task: int, per_node: str, node: int = 0, **more: str) -> dict[str, str]:
    """What srun sets for one of `tasks` tasks on two nodes."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_NODELIST": "localhost,node2",
        "SLURM_NTASKS": str(tasks),
        "SLURM_PROCID": str(task + node * tasks // 2),
        "SLURM_LOCALID": str(task),
        "SLURM_NODEID": str(node),
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        **EIGHT,
        **more,
    }


@pytest.mark.parametrize(("tasks", "share"), [(1, 8), (2, 4), (4, 2), (8, 1)])
@pytest.mark.parametrize("node", [0, 1])
def test_the_tasks_of_a_node_share_all_its_gpus(tasks, share, node, monkeypatch):
    """By JAX's own detector, from Slurm's variables."""
    found, given = [], {}
    monkeypatch.setattr(processes, "_start_coordinator", lambda *_: "")
    monkeypatch.setattr(processes, "_told", lambda *_: "1 secret")
    monkeypatch.setattr(processes.peers, "join", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: given.update(k, a=a))
    monkeypatch.setenv("SPHERE_JAX_POD", "1")
    monkeypatch.delenv("SPHERE_JAX_COORDINATOR", raising=False)
    for task in range(tasks):
        for name, value in slurm(2 * tasks, task, f"{tasks}(x2)", node).items():
            monkeypatch.setenv(name, value)
        processes.start_processes()
        assert given["a"][1:3] == (2 * tasks, task + node * tasks)
        # Else JAX would set the devices that are not given here to the task's number alone.
        assert given["cluster_detection_method"] == "deactivate"
        assert given["local_device_ids"] is None or len(given["local_device_ids"]) == share
        found += given["local_device_ids"] or range(8)
    assert sorted(found) == list(range(8))


def test_tasks_that_see_only_their_own_gpus_use_those():
    bound = slurm(16, 3, "8(x2)", CUDA_VISIBLE_DEVICES="3")
    assert local_devices([3], bound) is None
    bound = slurm(4, 1, "2(x2)", CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert local_devices([1], bound) is None


def test_nodes_with_other_numbers_of_tasks():
    assert local_devices([0], slurm(5, 0, "4,1", node=1)) is None
    assert local_devices([3], slurm(5, 3, "4,1")) == [6, 7]


def test_a_node_whose_gpus_cannot_be_shared_is_refused():
    words = refusal_of(local_devices, [0], slurm(6, 0, "3(x2)"))
    assert "3 tasks on this node cannot share its 8 GPUs evenly" in words


def test_jax_decides_where_nothing_says_how_many_gpus_there_are():
    unknown = slurm(4, 1, "2(x2)", CUDA_VISIBLE_DEVICES="", SLURM_GPUS_ON_NODE="")
    assert local_devices([1], unknown) == [1]
    mpi = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    assert local_devices([0], mpi) is None and local_devices(None, slurm(16, 3, "8(x2)")) is None


@pytest.mark.slow
def test_two_tasks_start_from_slurms_variables_alone():
    script = (
        "import jax; from jax._src.xla_bridge import CUDA_VISIBLE_DEVICES as seen;"
        "from sphere_jax.common.processes import start_processes as s; s();"
        "print(jax.process_index(), jax.process_count(), seen.value)"
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    more = {"SPHERE_JAX_POD": "1", "JAX_COORDINATOR_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | tiny_run.environment(**slurm(2, task, "2"), **more),
            cwd=tiny_run.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in range(2)
    ]
    said = [tiny_run.finish(process, timeout=120)[0].splitlines()[-1] for process in started]
    assert said == ["0 2 0,1,2,3", "1 2 4,5,6,7"]
