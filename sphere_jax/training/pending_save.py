"""A save that goes on while training does, and what orbax would print where it fails."""

import logging
import sys
import threading
from typing import Any

import orbax.checkpoint as ocp

from sphere_jax.training.checksums import Checksums


def _is_news(record: logging.LogRecord) -> bool:
    """Of a save that fails, orbax logs tracebacks in several threads; `result` raises the error."""
    return record.exc_info is None or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_is_news)


class WithoutClosedLoops:
    """While a save goes on, and after one that failed: of such a one, threads of tensorstore print
    many times that orbax's event loop is closed."""

    def __init__(self):
        self._before = sys.unraisablehook
        sys.unraisablehook = self

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            self._before(unraisable)

    def end(self) -> None:
        if sys.unraisablehook is self:
            sys.unraisablehook = self._before


class PendingSave:
    """The save of `step` that `manager` has begun in `root`. A thread waits for its end, and sums
    what this process has written."""

    def __init__(self, step: int, manager: ocp.CheckpointManager, checksums: Checksums, root: Any):
        self.step, self._manager, self._checksums, self._root = step, manager, checksums, root
        self._sums: dict[str, int] = {}
        self._error: Exception | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._manager.wait_until_finished()
            self._sums = self._checksums.take(self.step, self._root, self._abandoned)
        except Exception as error:
            self._error = error

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> dict[str, int]:
        """Waits for the sums. Raises what has gone wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._sums

    def abandon(self) -> None:
        """Waits for the save, without its sums; errors are not raised."""
        self._abandoned.set()
        self._thread.join()
