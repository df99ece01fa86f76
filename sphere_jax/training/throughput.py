"""How long and how fast a stage trains."""

import contextlib
import math
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class TrainingTimer:
    """Seconds of training over all starts of a run. It runs from `start` on, except in `pause`."""

    def __init__(self, seconds: float = 0.0):
        self._seconds, self._since = seconds, None

    @property
    def seconds(self) -> float:
        return self._seconds + (time.monotonic() - self._since if self._since else 0.0)

    def start(self) -> None:
        self._since = time.monotonic()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        self._seconds, running, self._since = self.seconds, self._since is not None, None
        yield
        if running:
            self.start()


class Throughput:
    """Images and steps per second since `restart`, the model FLOP utilisation (MFU), and the share
    of time in which the devices waited for input.

    flops_per_step: of the model, counted (`training.flops`). peak_flops: FLOP/s of all devices.
    """

    def __init__(self, batch_size: int, flops_per_step: float, peak_flops: float):
        self._batch, self._flops, self._peak = batch_size, flops_per_step, peak_flops
        self.restart()

    def restart(self) -> None:
        """Starts over, after something that was not training, such as a preview."""
        self._start, self._steps, self._waited = time.monotonic(), 0, 0.0

    def step_done(self) -> None:
        self._steps += 1

    def waited_for_input(self, seconds: float) -> None:
        """The devices had nothing to do because the next batch was not there."""
        self._waited += seconds

    def rates(self) -> dict[str, float]:
        """Empty before the first step."""
        if self._steps == 0:
            return {}
        seconds = max(time.monotonic() - self._start, 1e-9)
        per_second = self._steps / seconds
        return {
            "images_per_second": per_second * self._batch,
            "steps_per_second": per_second,
            "model_flop_utilisation": per_second * self._flops / self._peak,
            "input_wait": min(self._waited / seconds, 1.0),
        }


def measure_peak_flops(dtype: DTypeLike = jnp.float32, size: int = 2048) -> float:
    """FLOP/s of one matrix product on all devices of this job, the best of five."""
    multiply = jax.jit(lambda a: a @ a)
    a = multiply(jnp.ones((size, size), dtype)).block_until_ready()
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        multiply(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best * jax.device_count()
