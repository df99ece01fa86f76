"""What a stage evaluates while it trains: held-out loss, preview images, scores."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from sphere_jax.data.source import Source
from sphere_jax.training.heldout import HeldOut
from sphere_jax.training.step_log import StepLog
from sphere_jax.training.task import Task


@dataclasses.dataclass(frozen=True)
class Curve:
    """`score(params) -> {name: number}`, every so many steps and after the last one."""

    score: Callable[[dict], dict[str, float]]
    every: int


class Evaluator:
    """show: called as `show(step, images)` with preview images."""

    def __init__(
        self,
        task: Task,
        heldout: Source,
        step_log: StepLog,
        show: Callable[[int, UInt8[np.ndarray, "n h w c"]], None],
        curve: Curve | None = None,
    ):
        self._options, self._heldout = task.options, HeldOut(task, heldout)
        self._step_log, self._show, self._curve = step_log, show, curve

    def due(self, step: int) -> bool:
        """Whether there is something to evaluate after `step`."""
        return self._preview_due(step) or self._scores_due(step)

    def evaluate(self, step: int, params: dict) -> None:
        """What is due after `step`. The time it takes is not training time."""
        with self._step_log.paused():
            if self._preview_due(step):
                self.preview(step, params)
            if self._scores_due(step):
                started = time.monotonic()
                scores = self._curve.score(params)
                self._step_log.log_scores(step, scores, time.monotonic() - started)

    def preview(self, step: int, params: dict) -> None:
        """The held-out loss, and images if the method has some to show."""
        self._step_log.log_heldout(step, self._heldout.metrics(params))
        images = self._heldout.preview(params)
        if images is not None:
            self._show(step, images)

    def _preview_due(self, step: int) -> bool:
        return step == self._options.steps or step % self._options.preview_every == 0

    def _scores_due(self, step: int) -> bool:
        if self._curve is None:
            return False
        return step == self._options.steps or step % self._curve.every == 0
