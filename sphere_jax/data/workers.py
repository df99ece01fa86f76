"""Processes that read batches for a run, started by grain."""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

import grain
import jax
from absl import flags

from sphere_jax.common.errors import UserError
from sphere_jax.common.interruption import SIGNALS

AHEAD = 2  # batches that wait in each worker


def read_by_workers(batches: grain.IterDataset, count: int) -> grain.IterDataset:
    """The same batches in the same order, read by `count` processes."""
    # After a signal some blocks of shared memory are left to Python's tracker, which frees them.
    sys.warnoptions.append("ignore:resource_tracker")
    flags.FLAGS.mark_as_parsed()  # grain asks absl, which sphere_jax gives no command line
    options = grain.MultiprocessingOptions(count, per_worker_buffer_size=AHEAD)
    return batches.mp_prefetch(options, worker_init_fn=start_worker)


@contextlib.contextmanager
def ended_workers_named() -> Iterator[None]:
    """Raises UserError where a worker has been killed."""
    try:
        yield
    except RuntimeError as error:
        if "Worker process" not in str(error):
            raise
        code = re.search(r"exit code (-?\d+)", str(error))
        raise UserError(
            f"A process that reads data has ended{f' (exit code {code[1]})' if code else ''}, "
            "perhaps for lack of memory or of room in /dev/shm; lower config.data.workers, or set "
            "it to 0 and read by threads."
        ) from error


def start_worker(number: int, count: int) -> None:
    """What worker `number` of `count` does first.

    It leaves accelerators to the run. Signals that a whole group of processes gets are for the run,
    which ends its workers once it has saved; a worker whose run is gone ends by itself.
    """
    flags.FLAGS.mark_as_parsed()
    jax.config.update("jax_platforms", "cpu")
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    if run := multiprocessing.parent_process():
        run.join()
        os._exit(1)
