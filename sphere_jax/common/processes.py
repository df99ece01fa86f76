"""Joining the processes of a pod. A single process needs nothing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import jax

from sphere_jax.common import peers
from sphere_jax.common.errors import Unanswered, UserError
from sphere_jax.common.interruption import end_at_once, say
from sphere_jax.common.local_devices import local_devices

WAIT = 30  # seconds in which all processes of a run must start; $SPHERE_JAX_WAIT sets another
SAID_AFTER = 10.0  # seconds until it is said that others are waited for


def start_processes(timeout_seconds: int | None = None) -> None:
    """Joins the other processes of this job, if there are any, and ends this one if another one
    ends before its time (`common/peers.py`), or has not come within `timeout_seconds` (by default
    $SPHERE_JAX_WAIT or `WAIT`): with one sentence and the exit code of `Unanswered`.

    Two ways, both from the environment so that every launcher in `launch/` can set them:
    `SPHERE_JAX_POD=1` asks JAX to find the coordinator by itself (TPU pods, Slurm, MPI);
    `SPHERE_JAX_COORDINATOR=host:port` with `SPHERE_JAX_PROCESSES` and `SPHERE_JAX_PROCESS` names
    it explicitly.

    Raises:
      UserError: some of the variables are missing or wrong, or the GPUs of a node cannot be shared.
      Unanswered: the others cannot be joined.
    """
    if not _set_up():
        return
    wait = _wait()  # always, so that `preflight --wait` refuses a wrong value as well
    timeout_seconds = timeout_seconds or wait
    try:
        with _limited(timeout_seconds):
            address, count, number, devices = _from_environment(timeout_seconds)
            host, _, port = address.rpartition(":")
            own = _start_coordinator(f"[::]:{port}", count) if number == 0 else ""
            jax.config.update("jax_enable_preemption_service", False)  # would take SIGTERM from us
            jax.distributed.initialize(
                address,
                count,
                number,
                local_device_ids=devices,
                cluster_detection_method="deactivate",  # else JAX takes one GPU of a Slurm task's
                initialization_timeout=timeout_seconds + 60,
                coordinator_bind_address="127.0.0.1:0",  # of a service that nobody uses
            )
            if count > 1:
                told, secret = _told(own, timeout_seconds).split()
                peers.join((host.strip("[]"), int(told)), secret, number)
        jax.devices()  # all at once, however different their work is before they need them
    except (RuntimeError, OSError) as error:
        raise _unanswered(error) from error


def refuse_several(command: str) -> None:
    """Raises UserError if several processes are set up, of which `command` makes no use."""
    count = _from_environment(timeout_seconds=60)[1] if _set_up() else 1
    if count > 1:
        raise UserError(
            f"{command} runs in one process, and {count} are set up here by SPHERE_JAX_POD or "
            "SPHERE_JAX_COORDINATOR, which would all write the same files; start it on one host, "
            "without these variables."
        )


def _unanswered(error: Exception) -> Unanswered:
    return Unanswered(
        f"The other processes could not be joined ({error}); check that the same command was "
        "started on every host, and that all hosts reach the ports of the first one."
    )


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Says after a while that others are waited for, and ends this process after `seconds`."""
    timers = [
        Timer(SAID_AFTER, _say_waiting, (seconds,)),
        # jaxlib would abort the process, with a stack trace.
        Timer(seconds, _end_unanswered, (seconds,)),
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def _end_unanswered(timeout_seconds: int) -> None:
    say(
        f"error: The other processes did not answer within {timeout_seconds} s; check that the "
        "same command was started on every host, or set SPHERE_JAX_WAIT to more seconds."
    )
    end_at_once(Unanswered.exit_code)


def _say_waiting(timeout_seconds: int) -> None:
    say(
        f"Waiting for the other processes of this run, for {timeout_seconds} s at most: hosts "
        "may start at different times."
    )


def _wait() -> int:
    """Seconds in which the others must come."""
    given = os.environ.get("SPHERE_JAX_WAIT") or str(WAIT)
    if not re.fullmatch("[1-9][0-9]{0,5}", given):
        raise UserError(f"SPHERE_JAX_WAIT={given} must be whole seconds, 1 to 999999.")
    return int(given)


def _set_up() -> bool:
    """Whether the environment says that this is one of several processes, or may be."""
    address = os.environ.get("SPHERE_JAX_COORDINATOR")
    return bool(address) or os.environ.get("SPHERE_JAX_POD") == "1"


def _from_environment(timeout_seconds: int) -> tuple[str, int, int, list[int] | None]:
    """Coordinator, number of processes, number of this one, and its devices (None: all)."""
    address = os.environ.get("SPHERE_JAX_COORDINATOR")
    if not address:
        return _detected(timeout_seconds)
    try:
        count, number = (
            int(os.environ[name]) for name in ("SPHERE_JAX_PROCESSES", "SPHERE_JAX_PROCESS")
        )
    except KeyError as missing:
        raise UserError(
            f"SPHERE_JAX_COORDINATOR is set but {missing.args[0]} is not; set both "
            "SPHERE_JAX_PROCESSES and SPHERE_JAX_PROCESS."
        ) from None
    except ValueError as error:
        raise UserError(
            f"SPHERE_JAX_PROCESSES and SPHERE_JAX_PROCESS must be numbers ({error})."
        ) from error
    if not 0 <= number < count:
        raise UserError(
            f"SPHERE_JAX_PROCESS={number} is none of SPHERE_JAX_PROCESSES={count} processes, which "
            "are numbered from 0."
        )
    return address, count, number, None


def _detected(timeout_seconds: int) -> tuple[str, int, int, list[int] | None]:
    """What `jax.distributed.initialize` would find by itself.

    On a TPU pod it asks the metadata server, and waits until the first host has a name.
    """
    from jax._src.clusters import ClusterEnv

    none = (None,) * 5
    try:
        address, count, number, devices = ClusterEnv.auto_detect_unset_distributed_params(
            *none, timeout_seconds
        )
    except (RuntimeError, OSError, ValueError, LookupError) as error:
        raise _unanswered(error) from error
    if address is None or count is None or number is None:
        raise UserError(
            "SPHERE_JAX_POD=1 is set but JAX finds no pod, Slurm or MPI here; unset it, or set "
            "SPHERE_JAX_COORDINATOR, SPHERE_JAX_PROCESSES and SPHERE_JAX_PROCESS."
        )
    return address, count, number, local_devices(devices)


def _start_coordinator(bind_address: str, count: int) -> str:
    """Starts `common/coordinator.py`, which ends after this process; its port and its secret."""
    line = [sys.executable, "-m", "sphere_jax.common.coordinator", bind_address, str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(line, **pipes, text=True, start_new_session=True)
    own = process.stdout.readline().strip()
    if not own:
        reason = (process.stderr.read().strip().splitlines() or ["it ended at once"])[-1]
        raise UserError(f"No coordinator can listen on {bind_address} ({reason[:200]}).")
    _start_coordinator.process = process  # alive as long as this one: its pipe must stay open
    return own


def _told(own: str, timeout_seconds: int) -> str:
    """Port and secret of the first process's coordinator, where they are `own`. They are told by
    the store of `jax.distributed` and not by devices: those of a pod may take a minute to start,
    with everyone there."""
    from jax._src.distributed import global_state

    if own:
        global_state.client.key_value_set("sphere_jax coordinator", own)
        return own
    told = global_state.client.blocking_key_value_get
    return told("sphere_jax coordinator", 1000 * (timeout_seconds + 60))


def barrier(where: str) -> None:
    """Returns once all processes have reached `where`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def told_by_main_process(answer: Any) -> Any:
    """The first process's `answer`, as JSON holds it, on every process; all must call it."""
    if jax.process_count() == 1:
        return answer
    return json.loads(gathered_texts(json.dumps(answer))[0])


def gathered(content: bytes) -> list[bytes]:
    """What each process gives, in their order, on every process; all must call it."""
    if jax.process_count() == 1:
        return [content]
    import numpy as np
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(content)], np.uint32)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    everything = multihost_utils.process_allgather(padded)
    rows = zip(everything.reshape(len(sizes), -1), sizes, strict=True)
    return [row[: int(size)].tobytes() for row, size in rows]


def gathered_texts(text: str) -> list[str]:
    """The `text` of every process, as `gathered` gives it."""
    return [part.decode() for part in gathered(text.encode())]


def is_main_process() -> bool:
    """The process that writes logs, records and reports."""
    return jax.process_index() == 0
