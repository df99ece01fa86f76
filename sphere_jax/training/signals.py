"""Ctrl-C and SIGTERM as a request to save and stop, on which all processes agree."""

from contextlib import ExitStack

import jax

from sphere_jax.common.interruption import held


class StopRequest:
    """While active, the first signal requests a stop and a second one raises KeyboardInterrupt.

    Until `worth_saving` is set, a single process has nothing to save: the first one does.
    """

    def __init__(self):
        self._requested, self._stack = False, ExitStack()
        self.worth_saving = jax.process_count() > 1

    def __enter__(self):
        self._stack.enter_context(held(self._request, lambda: self.worth_saving))
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _request(self):
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
