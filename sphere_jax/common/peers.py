"""What a process knows of the others of its run: whether one of them has ended before its time.

The others cannot go on without it, and would wait for it without end. `Peers` ends this process
with one sentence and an exit code instead, by which launchers decide whether to start all again.
See `coordinator.py` for the other side.
"""

import socket
import threading
import time
import traceback
from contextlib import suppress

from sphere_jax.common.coordinator import keep_alive
from sphere_jax.common.interruption import end_at_once, say

GRACE = 2.0  # seconds in which an error of this process's own, perhaps the same, is reported first
UNEXPLAINED = 25.0  # seconds for the end of another process to be known, after an unknown error
EXIT_CODES = {"lost": 75, "error": 1, "stopped": 130}  # 75: what failed may work when repeated
KINDS = {
    "lost": "has ended",
    "error": "has stopped with an error (see its message)",
    "stopped": "was interrupted",
}


class Peers:
    """A connection to the coordinator at `address`, from process `number`, which shows `secret`."""

    def __init__(self, address: tuple[str, int], secret: str, number: int):
        self._connection = socket.create_connection(address, timeout=60)
        self._connection.settimeout(None)
        keep_alive(self._connection)
        self._known, self._reporting = threading.Event(), threading.Lock()
        self._left = threading.Event()  # this process has said how it ends
        self._number, self._kind = "", ""
        self._send(f"{secret} {number}")
        threading.Thread(target=self._watch, daemon=True).start()

    def leave(self, kind: str, wait: float) -> str:
        """As `leave` below. From now on nothing but the caller reports here."""
        if kind == "done":
            self._left.set()
        if kind != "done":
            self._known.wait(wait)
            self._reporting.acquire()  # never released: the process ends
        self._send(kind)
        own = kind == "stopped" or (self._kind != "lost" and wait < UNEXPLAINED)
        return "" if own or not self._known.is_set() else self._sentence()

    @property
    def code(self) -> int:
        """The exit code of this process where the end of another one is its cause."""
        return EXIT_CODES.get(self._kind, 1)

    def _sentence(self) -> str:
        return (
            f"Process {self._number} of this run {KINDS[self._kind]}, so this one stops too; the "
            "same command, on all processes, resumes from what is saved."
        )

    def _send(self, word: str) -> None:
        with suppress(OSError):  # the coordinator has ended; jaxlib notices that too
            self._connection.sendall(f"{word}\n".encode())

    def _watch(self) -> None:
        try:
            said = self._connection.makefile().readline().split()
        except OSError:
            said = []
        if not said and self._left.is_set():  # the coordinator ends after the first process
            return
        # Without a word, the coordinator itself has gone, with the host of the first process.
        self._number, self._kind = said or ("0", "lost")
        self._known.set()
        time.sleep(GRACE)
        if self._reporting.acquire(blocking=False):
            say(f"error: {self._sentence()}")
            end_at_once(self.code)


_peers: Peers | None = None


def join(address: tuple[str, int], secret: str, number: int) -> None:
    """Tells the coordinator at `address` of this process, `number` of the run."""
    global _peers
    _peers = Peers(address, secret, number)


def leave(kind: str, wait: float = 1.0) -> str:
    """Tells the others how this process is about to end: "done", "error" or "stopped".

    Returns what to say instead of an error of this process where the loss of another one is its
    cause, which takes up to `wait` seconds to be known, else "".
    """
    return _peers.leave(kind, wait) if _peers is not None else ""


def code() -> int:
    """The exit code that goes with the sentence of `leave`."""
    return _peers.code if _peers is not None else 1


def end(code: int) -> None:
    """Ends one of several processes without waiting for the others, if `code` is not 0."""
    if code and _peers is not None:
        end_at_once(code)


def end_with_traceback() -> None:
    """Ends one of several processes by the exception that is being handled."""
    if _peers is not None:
        traceback.print_exc()
        end(1)
