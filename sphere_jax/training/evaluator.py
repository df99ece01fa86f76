"""What a stage evaluates while it trains: held-out loss, preview images, scores."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from sphere_jax.data.source import Source
from sphere_jax.training.best import KeepBest
from sphere_jax.training.heldout import HeldOut
from sphere_jax.training.step import State
from sphere_jax.training.step_log import StepLog
from sphere_jax.training.task import Task


@dataclasses.dataclass(frozen=True)
class Curve:
    """`score(params, what) -> {name: number}`, every so many steps and after the last one; `what`
    names step and weights.

    both: score the average and the raw weights, those that the stage does not use under names that
      end in "_raw" or "_ema".
    keep_best: the score whose best weights, of those that the stage uses, are kept; "" for none.
    lower: whether lower scores are better there.
    """

    score: Callable[[dict, str], dict[str, float]]
    every: int
    both: bool = False
    keep_best: str = ""
    lower: bool = True


class Evaluator:
    """show: called as `show(step, images)` with preview images."""

    def __init__(
        self,
        task: Task,
        heldout: Source,
        step_log: StepLog,
        show: Callable[[int, UInt8[np.ndarray, "n h w c"]], None],
        curve: Curve | None = None,
        best: KeepBest | None = None,
    ):
        self._options, self._heldout = task.options, HeldOut(task, heldout)
        self._step_log, self._show, self._curve, self._best = step_log, show, curve, best
        self._used, self._name = task.weights_item, task.name

    def due(self, step: int) -> bool:
        """Whether there is something to evaluate after `step`."""
        return self._preview_due(step) or self._scores_due(step)

    def evaluate(self, step: int, state: State) -> None:
        """What is due after `step`. The time it takes is not training time."""
        with self._step_log.paused():
            if self._preview_due(step):
                self.preview(step, state[self._used])
            if self._scores_due(step):
                started = time.monotonic()
                scores = self._scores(step, state)
                if self._best is not None:
                    self._best.offer(step, scores, self._used, state[self._used])
                self._step_log.log_scores(step, scores, time.monotonic() - started)

    def _scores(self, step: int, state: State) -> dict[str, float]:
        found = {}
        items = [self._used, *({"ema", "params"} - {self._used} if self._curve.both else ())]
        for item in items:
            kind = {"ema": "ema", "params": "raw"}[item]
            scores = self._curve.score(state[item], f"{self._name}-{step}-{kind}")
            end = "" if item == self._used else f"_{kind}"
            found |= {f"{name}{end}": value for name, value in scores.items()}
        return found

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
