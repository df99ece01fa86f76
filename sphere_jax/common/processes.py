"""Joining the processes of a pod. A single process needs nothing."""

import os

import jax

from sphere_jax.common.errors import UserError


def start_processes(timeout_seconds: int = 300) -> None:
    """Joins the other processes of this job, if there are any.

    Two ways, both from the environment so that every launcher in `launch/` can set them:
    `SPHERE_JAX_POD=1` asks JAX to find the coordinator by itself (TPU pods, Slurm, MPI);
    `SPHERE_JAX_COORDINATOR=host:port` with `SPHERE_JAX_PROCESSES` and `SPHERE_JAX_PROCESS` names
    it explicitly.

    Raises:
      UserError: some of the variables are missing, or the others do not answer in time.
    """
    coordinator = os.environ.get("SPHERE_JAX_COORDINATOR")
    try:
        if coordinator:
            jax.distributed.initialize(
                coordinator,
                num_processes=int(os.environ["SPHERE_JAX_PROCESSES"]),
                process_id=int(os.environ["SPHERE_JAX_PROCESS"]),
                initialization_timeout=timeout_seconds,
            )
        elif os.environ.get("SPHERE_JAX_POD") == "1":
            jax.distributed.initialize(initialization_timeout=timeout_seconds)
    except KeyError as missing:
        raise UserError(
            f"SPHERE_JAX_COORDINATOR is set but {missing.args[0]} is not; set both "
            "SPHERE_JAX_PROCESSES and SPHERE_JAX_PROCESS."
        ) from None
    except ValueError as error:
        raise UserError(
            f"SPHERE_JAX_PROCESSES and SPHERE_JAX_PROCESS must be numbers ({error})."
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"The other processes did not answer within {timeout_seconds} s ({error}); check that "
            "the same command was started on every host."
        ) from error


def barrier(where: str) -> None:
    """Returns once all processes have reached `where`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def told_by_main_process(answer: bool) -> bool:
    """The first process's `answer`, on every process; all must call it."""
    if jax.process_count() == 1:
        return answer
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.array(answer)))


def is_main_process() -> bool:
    """The process that writes logs, records and reports."""
    return jax.process_index() == 0
