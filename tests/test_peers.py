"""One of several processes ends: what the coordinator tells the others, and what they say."""

import os
import socket
import threading
import time

import pytest

from sphere_jax.common import coordinator, peers

SECRET = "5ec12e7-"


@pytest.fixture
def hub(monkeypatch):
    """`(connect, close_owner, thread)` of a running coordinator."""
    monkeypatch.setattr(coordinator, "LINGER", 5.0)
    listener = socket.create_server(("127.0.0.1", 0))
    owner, write_end = os.pipe()
    thread = threading.Thread(target=coordinator.serve, args=(listener, owner, SECRET), daemon=True)
    thread.start()
    yield listener.getsockname(), thread, lambda: os.close(write_end)
    listener.close()


def joined(address, number):
    connection = socket.create_connection(address, timeout=20)
    connection.sendall(f"{SECRET} {number}\n".encode())
    return connection, connection.makefile()


def test_the_others_are_told_how_a_process_ended(hub):
    address, thread, first_process_ends = hub
    [(a, told_a), (b, told_b), (c, told_c), (d, told_d)] = [joined(address, n) for n in range(4)]
    time.sleep(0.3)  # until all four are known
    a.sendall(b"done\n")
    a.close(), told_a.close()
    b.sendall(b"error\n")
    assert told_c.readline() == told_d.readline() == "1 error\n"
    b.close(), told_b.close()
    c.close(), told_c.close()  # as a kill does
    assert told_d.readline() == "2 lost\n"
    first_process_ends()
    d.sendall(b"done\n")
    d.close(), told_d.close()
    thread.join(10)
    assert not thread.is_alive()


def test_what_a_process_says_for_another(hub, monkeypatch):
    """Its own error counts where the other one had an error too, as for a wrong config."""
    address, *_ = hub
    monkeypatch.setattr(peers, "GRACE", 60.0)
    own = [peers.Peers(address, SECRET, number) for number in (0, 1)]
    other, told = joined(address, 2)
    time.sleep(0.3)
    other.sendall(b"error\n")
    assert told.readable() and own[0].leave("error", wait=5.0) == ""
    assert "Process 2 of this run has stopped with an error" in own[1].leave("error", wait=25.0)
    later = peers.Peers(address, SECRET, 3)
    other.close(), told.close()
    killed, told = joined(address, 4)
    time.sleep(0.3)
    killed.close(), told.close()
    assert "Process 4 of this run has ended, so this one stops too" in later.leave("error", 5.0)


def test_a_process_that_waits_is_ended(hub, monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(peers, "GRACE", 0.0)
    monkeypatch.setattr(peers, "end_at_once", codes.append)
    waiting = peers.Peers(hub[0], SECRET, 0)
    killed, told = joined(hub[0], 1)
    time.sleep(0.3)
    killed.close(), told.close()
    assert waiting._known.wait(20)
    deadline = time.monotonic() + 20
    while not codes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert codes == [75]
    assert "error: Process 1 of this run has ended, so this one stops" in capsys.readouterr().err


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nUpgrade-Insecure-Requests: 1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\xff\xfe",
        b"1\n",
        b"",
    ],
    ids=["http", "tls", "number", "nothing"],
)
def test_a_stranger_is_no_process_of_the_run(hub, sent):
    """As a scan of ports is, on a cluster."""
    [(a, told_a), (b, told_b)] = [joined(hub[0], n) for n in (0, 1)]
    with socket.create_connection(hub[0], timeout=20) as stranger:
        stranger.sendall(sent)
        if sent:
            assert stranger.recv(1) == b""  # closed
    time.sleep(0.2)
    b.close(), told_b.close()
    assert told_a.readline() == "1 lost\n"
    a.close(), told_a.close()


@pytest.mark.parametrize("both", [True, False])
def test_a_port_for_both_kinds_of_addresses(monkeypatch, both):
    if not both:
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    elif not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    with coordinator._listener() as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
        assert listener.family == (socket.AF_INET6 if both else socket.AF_INET)


def test_one_process_alone_has_nobody_to_tell():
    assert peers.leave("error") == "" and peers.end(2) is None


def test_the_host_of_the_coordinator_vanishes(monkeypatch, capsys):
    """With it the first process is lost; the end of a coordinator that is done is no loss."""
    codes = []
    monkeypatch.setattr(peers, "GRACE", 0.0)
    monkeypatch.setattr(peers, "end_at_once", codes.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        waiting, done = (peers.Peers(address, SECRET, number) for number in (1, 2))
        connections = [listener.accept()[0] for _ in range(2)]
        assert done.leave("done", wait=1.0) == ""
        for connection in connections:
            connection.close()
    assert waiting._known.wait(20) and not done._known.wait(0.5)
    deadline = time.monotonic() + 20
    while not codes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert codes == [75]
    assert capsys.readouterr().err.count("error: Process 0 of this run has ended") == 1
