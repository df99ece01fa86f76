"""Ctrl-C and SIGTERM as a request to save and stop, on which all processes agree."""

import time
from contextlib import ExitStack

import jax
import numpy as np

from sphere_jax.common.interruption import held

EXCHANGED_EVERY = 5.0  # seconds: launchers and spot VMs give a process 30 to 300 s to save


class StopRequest:
    """While active, the first signal requests a stop and a second one raises KeyboardInterrupt.

    Until `worth_saving` is set, a single process has nothing to save: the first one does.
    most_steps: the most between two exchanges of several processes.
    """

    def __init__(self, most_steps: int):
        self._requested, self._stack = False, ExitStack()
        self._most_steps, self._next, self._last = most_steps, 0, (0, -np.inf)
        self.worth_saving = jax.process_count() > 1

    def __enter__(self):
        self._stack.enter_context(held(self._request, lambda: self.worth_saving))
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _request(self):
        self._requested = True

    def agreed(self, step: int, last: bool = False) -> bool:
        """Whether to stop after `step`.

        Several processes must stop at the same step, so they exchange their requests: after the
        first step that is asked for, at `last`, and about every `EXCHANGED_EVERY` seconds by the
        first process's clock. It decides after how many steps that is next. An exchange waits for
        the devices, for milliseconds.
        """
        if jax.process_count() == 1:
            return self._requested
        if step < self._next and not last:
            return False
        from jax.experimental import multihost_utils

        given = np.array([self._requested, self._steps_until_next(step)], np.int32)
        found = multihost_utils.process_allgather(given).reshape(-1, 2)  # a row for each process
        self._next, self._last = step + int(found[0, 1]), (step, time.monotonic())
        return bool(found[:, 0].any())

    def _steps_until_next(self, step: int) -> int:
        """By how long steps took since the last exchange; 1 at the first one. At most twice as many
        as before, since the next ones may be slower than one that was measured."""
        steps, seconds = step - self._last[0], max(time.monotonic() - self._last[1], 1e-9)
        return max(1, min(int(EXCHANGED_EVERY * steps / seconds), 2 * steps, self._most_steps))
