"""Ctrl-C and SIGTERM as a request to save and stop, agreed on by all processes."""

import signal

import jax


class Interrupted(Exception):
    """The run was asked to stop and has saved; the same command goes on."""


class StopRequest:
    """While active, the first signal asks for a stop and a second one ends the process at once."""

    def __init__(self):
        self._asked = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self._asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = True

    def agreed(self, meet: bool) -> bool:
        """Whether to stop now. Several processes must stop at the same step, so they compare notes
        only where `meet` is true (at every log line)."""
        if jax.process_count() == 1:
            return self._asked
        if not meet:
            return False
        import numpy as np
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.array(self._asked)).any())
