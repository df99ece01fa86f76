"""What a stage logs while it trains. The numbers of a step are read one step late.

Reading a number waits for the device. Step i is read after step i + 1 was dispatched, so the device
always has work.
"""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Shaped

from sphere_jax.common.progress import duration
from sphere_jax.training.optimizers import learning_rates
from sphere_jax.training.run_log import RunLog
from sphere_jax.training.task import Task
from sphere_jax.training.throughput import Throughput, TrainingTimer


class NotFinite(Exception):
    """The metrics `names` of `step` are NaN or infinite, and no more such steps may be skipped."""

    def __init__(self, step: int, names: list[str]):
        super().__init__(f"not finite at step {step:,}: {', '.join(names)}")
        self.step = step


class StepLog:
    """Rows of `metrics.jsonl` and lines on the screen for one stage.

    skipped: steps that were not finite, before this start.
    """

    def __init__(self, task: Task, log: RunLog, throughput: Throughput, timer: TrainingTimer,
                 skipped: int):  # fmt: skip
        self._name, self._options = task.name, task.options
        self._log, self._throughput, self._timer = log, throughput, timer
        self._skipped = skipped
        self._rates = learning_rates(task.options.optimizer, task.options.steps)
        self._unread = None  # (step, metrics on the device)
        self._created, self._compiled = time.monotonic(), False

    def add(self, step: int, metrics: dict[str, Shaped[Array, ""]]) -> None:
        """Takes the metrics of a step just dispatched; reads those of the step before.

        Raises NotFinite, as `flush` does.
        """
        self.flush()
        self._unread = (step, metrics)
        if self._compiled:
            self._throughput.step_done()
        else:  # the first step compiles, which is not training time
            jax.block_until_ready(metrics)
            took = duration(time.monotonic() - self._created)
            self._log.print(f"{self._name}: compiled in {took}")
            self._compiled = True
            self._throughput.restart()
            self._timer.start()

    @contextlib.contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Around taking the next batch. It counts where the devices have finished the step before
        by then, as after a flush; else they worked all the while. An upper bound: when they
        finished is not known."""
        start = time.monotonic()
        yield
        if self._unread is None or all(value.is_ready() for value in self._unread[1].values()):
            self._throughput.waited_for_input(time.monotonic() - start)

    def flush(self) -> None:
        """Waits for the last step added, and logs it if it is due.

        Raises:
          NotFinite: its loss or gradient is not finite, once more than `skip_nonfinite` allows.
        """
        if self._unread is None:
            return
        (step, metrics), self._unread = self._unread, None
        options = self._options
        numbers = {name: float(value) for name, value in jax.device_get(metrics).items()}
        finite = bool(numbers["finite"])
        if not finite:
            self._skipped += 1
            if self._skipped > options.skip_nonfinite:
                self._log.write(self._name, step, numbers)
                raise NotFinite(step, [k for k, v in numbers.items() if not np.isfinite(v)])
            self._log.print(
                f"{self._name}: the loss or gradient of step {step:,} is not finite; skipped"
            )
        if step % options.log_every == 0 or step == options.steps or not finite:
            self._log_step(step, numbers)

    def _log_step(self, step: int, numbers: dict[str, float]) -> None:
        rates = self._throughput.rates()
        more = {
            "learning_rate": float(self._rates[step - 1 - self._skipped]),  # of updates, not steps
            "training_seconds": self._timer.seconds,
        }
        self._log.write(self._name, step, numbers | rates | more)
        line = f"loss {numbers['loss']:.4f}"
        if rates:
            left = (self._options.steps - step) / rates["steps_per_second"]
            line += (
                f"  {rates['images_per_second']:,.0f} img/s  "
                f"MFU {100 * rates['model_flop_utilisation']:.0f}%  "
                f"input {100 * rates['input_wait']:.0f}%  {duration(left)} left"
            )
        self._print(step, line)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is not training: it counts neither as time nor for the throughput."""
        with self._timer.pause():
            yield
        self._throughput.restart()

    def log_heldout(self, step: int, metrics: dict[str, float]) -> None:
        self._log.write(self._name, step, metrics)
        self._print(step, f"held-out loss {metrics['heldout_loss']:.4f}")

    def log_scores(self, step: int, scores: dict[str, float], seconds: float) -> None:
        """A point of the learning curve; `seconds` is how long the scoring took."""
        spent = {
            "images_trained": step * self._options.batch_size,
            "training_seconds": self._timer.seconds,
        }
        self._log.write(self._name, step, scores | spent)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in scores.items())
        self._print(step, f"{shown}  (in {duration(seconds)})")

    def _print(self, step: int, line: str) -> None:
        self._log.print(f"{self._name} {step:,}/{self._options.steps:,}  {line}")
