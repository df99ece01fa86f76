"""A signal to one of two processes: both stop after the same step, and soon."""

import threading

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from sphere_jax.training import signals
from sphere_jax.training.signals import StopRequest


@pytest.fixture
def exchanges(monkeypatch):
    """`exchanges(step_seconds, most_steps, requested_at, steps)`: of two processes whose steps take
    so long by their clocks. Process 1 gets a signal during a step. Returns for each process after
    which steps it exchanged, and where it stopped (None: it did not)."""
    here, met, given = threading.local(), threading.Barrier(2, timeout=20), [None, None]

    def process_allgather(row):
        here.asked.append(here.step)
        given[here.number] = row
        met.wait()
        found = np.stack(given)
        met.wait()
        return found

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", process_allgather)
    monkeypatch.setattr(signals.time, "monotonic", lambda: here.clock)

    def exchange(step_seconds, most_steps, requested_at, steps):
        found = [None, None]

        def process(number):
            here.number, here.clock, here.asked = number, 0.0, []
            stop, stopped = StopRequest(most_steps), None
            for step in range(1, steps + 1):
                here.step, here.clock = step, here.clock + step_seconds[number](step)
                if number == 1 and step == requested_at:
                    stop._request()
                if stop.agreed(step, last=step == steps):
                    stopped = step
                    break
            found[number] = here.asked, stopped

        threads = [threading.Thread(target=process, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return exchange


def seconds(value):
    return lambda step: value


def test_processes_exchange_requests_every_few_seconds(exchanges):
    """By the first one's clock, whatever the log's steps and the other clock."""
    one, other = exchanges((seconds(0.5), seconds(0.01)), 10**6, requested_at=34, steps=10**4)
    assert one == other == ([1, 2, 4, 8, 16, 26, 36], 36)


def test_slow_steps_are_each_asked_for(exchanges):
    one, other = exchanges((seconds(9.0), seconds(9.0)), 100, requested_at=3, steps=10)
    assert one == other == ([1, 2, 3], 3)


def test_they_exchange_at_least_as_often_as_they_log(exchanges):
    one, other = exchanges((seconds(1e-4), seconds(1e-4)), 20, requested_at=0, steps=60)
    assert one == other == ([1, 2, 4, 8, 16, 32, 52, 60], None)


def test_the_interval_follows_the_speed(exchanges):
    """What compiling or a preview takes does not stay in it, nor does a step that was quick."""
    slow = {1: 60.0, 2: 1e-3, 6: 30.0}
    times = (lambda step: slow.get(step, 1.0), seconds(1.0))
    one, other = exchanges(times, 100, requested_at=0, steps=14)
    assert one == other == ([1, 2, 4, 8, 9, 11, 14], None)
