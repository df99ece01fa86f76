"""The process beside the first one of a run that tells the others which of them has ended.

    python -m sphere_jax.common.coordinator BIND_ADDRESS COUNT

It serves `jax.distributed` as well: if that service were part of the first process, its end would
abort the others inside jaxlib before they could say why. Started by `common/processes.py`.

Every process of the run keeps a connection to the port that is printed first, with a secret. It
sends the secret and its number, and "done" before it ends as it should; others that connect, say a
scan of ports, are no processes of the run. The others get "NUMBER KIND" once a process has ended
otherwise; KIND is "error" after a message of its own, else "lost". The operating system closes the
connections of a killed process at once, and those of a host that is gone within 20 s (keep-alive).
"""

import secrets
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

LINGER = 30.0  # seconds after the first process
KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds, seconds, probes


def keep_alive(connection: socket.socket) -> None:
    """Closes the connection within 20 s of the other host's end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):  # of Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def serve(listener: socket.socket, owner: int, secret: str) -> None:
    """Passes on who has ended, until the pipe `owner` is closed and all connections with it."""
    open_connections: dict[socket.socket, str] = {}  # the number of each process, "" at first
    ended: set[str] = set()  # numbers of those that have said how
    deadline = None
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(owner, selectors.EVENT_READ)
        while deadline is None or (open_connections and time.monotonic() < deadline):
            for key, _ in selector.select(timeout=1.0):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    keep_alive(connection)
                    selector.register(connection, selectors.EVENT_READ)
                    open_connections[connection] = ""
                elif key.fileobj == owner:
                    selector.unregister(owner)
                    deadline = time.monotonic() + LINGER
                else:
                    said = _received(key.fileobj)
                    if not open_connections[key.fileobj] and said[:1] != [secret]:
                        said = []  # a stranger, or nobody
                    if not said:
                        selector.unregister(key.fileobj)
                    _pass_on(said or ["lost"], key.fileobj, open_connections, ended)


def _received(connection: socket.socket) -> list[str]:
    """The words that a process has sent; none once its connection is closed."""
    try:
        return connection.recv(1 << 12).decode(errors="replace").split()
    except OSError:
        return []


def _pass_on(words: list[str], connection, open_connections: dict, ended: set[str]) -> None:
    number = open_connections[connection]
    for word in words:
        if word.isdigit():
            open_connections[connection] = number = word
            continue
        if word == "lost":
            del open_connections[connection]
            connection.close()
        if word != "done" and number and number not in ended:
            for other in open_connections:
                with suppress(OSError):  # it has ended too
                    other.sendall(f"{number} {word}\n".encode())
        ended.add(number)


def main(bind_address: str, count: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the processes of the run
        signal.signal(number, signal.SIG_IGN)
    from jax._src.lib import _jax

    service = _jax.get_distributed_runtime_service(bind_address, count)
    secret = secrets.token_hex(16) + "-"  # not a number, as those of processes
    with _listener() as listener:
        print(listener.getsockname()[1], secret, flush=True)
        serve(listener, sys.stdin.fileno(), secret)
    del service


def _listener() -> socket.socket:
    """On a free port, for IPv6 as well where this host has it."""
    if socket.has_dualstack_ipv6():
        with suppress(OSError):
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
