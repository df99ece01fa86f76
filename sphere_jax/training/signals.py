"""Ctrl-C and SIGTERM as a request to save and stop, on which all processes agree."""

import signal

import jax


class Interrupted(Exception):
    """A signal stopped the run after it had saved; the same command resumes it."""


class StopRequest:
    """While active, the first signal requests a stop; a second one ends the process at once."""

    def __init__(self):
        self._requested = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self._requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._requested = True

    def agreed(self, barrier: bool) -> bool:
        """Whether to stop now. Several processes must stop at the same step, so they exchange
        their requests, but only where `barrier` is true (at every log line)."""
        if jax.process_count() == 1:
            return self._requested
        if not barrier:
            return False
        import numpy as np
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.array(self._requested)).any())
