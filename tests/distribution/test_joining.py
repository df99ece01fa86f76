"""How a process joins the others of its run, and what it says where it cannot."""

import socket
import threading

import jax
import pytest
from jax._src.clusters import ClusterEnv

from sphere_jax.common import processes
from sphere_jax.common.errors import Unanswered, UserError
from sphere_jax.common.processes import start_processes


@pytest.mark.parametrize("given", ["SPHERE_JAX_PROCESSES", "SPHERE_JAX_PROCESS"])
def test_half_of_the_variables(monkeypatch, given):
    monkeypatch.setenv("SPHERE_JAX_COORDINATOR", "127.0.0.1:1")
    monkeypatch.setenv(given, "1")
    with pytest.raises(UserError, match="set both SPHERE_JAX_PROCESSES and SPHERE_JAX_PROCESS"):
        start_processes()


def test_variables_that_are_no_numbers(monkeypatch):
    monkeypatch.setenv("SPHERE_JAX_COORDINATOR", "127.0.0.1:1")
    monkeypatch.setenv("SPHERE_JAX_PROCESSES", "two")
    monkeypatch.setenv("SPHERE_JAX_PROCESS", "0")
    with pytest.raises(UserError, match="must be numbers"):
        start_processes()


@pytest.mark.parametrize("given", ["0", "1.5", "-3", "half a minute", "1" * 9])
def test_a_wait_that_is_no_number_of_seconds(monkeypatch, given):
    monkeypatch.setenv("SPHERE_JAX_COORDINATOR", "127.0.0.1:1")
    monkeypatch.setenv("SPHERE_JAX_WAIT", given)
    with pytest.raises(UserError, match=f"SPHERE_JAX_WAIT={given} must be whole seconds"):
        start_processes()


@pytest.mark.parametrize("number", ["2", "-1"])
def test_a_number_that_is_no_process(monkeypatch, number):
    monkeypatch.setenv("SPHERE_JAX_COORDINATOR", "127.0.0.1:1")
    monkeypatch.setenv("SPHERE_JAX_PROCESSES", "2")
    monkeypatch.setenv("SPHERE_JAX_PROCESS", number)
    with pytest.raises(UserError, match=f"={number} is none of SPHERE_JAX_PROCESSES=2"):
        start_processes()


def test_a_single_process_needs_nothing(monkeypatch):
    for name in ("SPHERE_JAX_COORDINATOR", "SPHERE_JAX_POD"):
        monkeypatch.delenv(name, raising=False)
    start_processes()
    assert jax.process_count() == 1


def test_processes_that_do_not_answer_may_do_so_later(monkeypatch):
    """Launchers start all of them again, as the exit code says."""
    monkeypatch.setenv("SPHERE_JAX_COORDINATOR", "127.0.0.1:1")
    monkeypatch.setenv("SPHERE_JAX_PROCESSES", "2")
    monkeypatch.setenv("SPHERE_JAX_PROCESS", "1")

    def late(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(jax.distributed, "initialize", late)
    with pytest.raises(Unanswered, match="could not be joined .DEADLINE_EXCEEDED.") as caught:
        start_processes(7)
    assert caught.value.exit_code == 75 and UserError.exit_code == 2


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("Failed to recognize coordinator address t1v-0"),  # after the time limit
        ConnectionError("Max retries exceeded: metadata.google.internal"),
        ValueError("invalid literal for int() with base 10: '<html>'"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_cluster_that_cannot_be_asked_may_answer_later(monkeypatch, failure):
    """JAX's detection, on GKE and on TPU VMs."""

    def fail(*_):
        raise failure

    monkeypatch.setenv("SPHERE_JAX_POD", "1")
    monkeypatch.delenv("SPHERE_JAX_COORDINATOR", raising=False)
    monkeypatch.setattr(ClusterEnv, "auto_detect_unset_distributed_params", fail)
    with pytest.raises(Unanswered, match=r"could not be joined \(.*; check that the same command"):
        start_processes(7)


def test_detection_is_not_waited_for_without_end(monkeypatch):
    """It may wait for the first host's name; the process ends by the timer."""
    codes, ended = [], threading.Event()

    def wait(*_):
        assert ended.wait(20)
        raise RuntimeError("Failed to recognize coordinator address t1v-0")

    def end(code):
        codes.append(code)
        ended.set()

    monkeypatch.setenv("SPHERE_JAX_POD", "1")
    monkeypatch.delenv("SPHERE_JAX_COORDINATOR", raising=False)
    monkeypatch.setattr(ClusterEnv, "auto_detect_unset_distributed_params", wait)
    monkeypatch.setattr(processes, "end_at_once", end)
    with pytest.raises(Unanswered):
        start_processes(1)
    assert codes == [75]


def test_a_port_that_cannot_be_reached(monkeypatch):
    """That of the coordinator, behind a firewall: the others of a pod would wait for this one."""
    monkeypatch.setenv("SPHERE_JAX_COORDINATOR", "127.0.0.1:1")
    monkeypatch.setenv("SPHERE_JAX_PROCESSES", "2")
    monkeypatch.setenv("SPHERE_JAX_PROCESS", "1")
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr(processes, "_told", lambda *_: f"{port} secret")  # closed again
    with pytest.raises(Unanswered, match="Connection refused.*reach the ports of the first one"):
        start_processes(7)
