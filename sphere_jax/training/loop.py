"""The training loop: data -> sharded state -> restore -> step -> (log, save, evaluate)."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sphere_jax.common.allocator import give_back
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import in_bytes
from sphere_jax.common.interruption import Interrupted
from sphere_jax.config.options import CheckpointOptions
from sphere_jax.data.pipeline import Batches
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.training.best import KeepBest
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.ema_snapshots import (
    delete_snapshots_after,
    save_snapshots,
    snapshot_due,
    snapshot_folder,
    snapshot_totals,
)
from sphere_jax.training.evaluator import Curve, Evaluator
from sphere_jax.training.flops import step_flops
from sphere_jax.training.nonfinite import frozen_cause
from sphere_jax.training.run_log import RunLog
from sphere_jax.training.signals import StopRequest
from sphere_jax.training.step_log import NotFinite, StepLog
from sphere_jax.training.task import Task
from sphere_jax.training.throughput import Throughput, TrainingTimer

AS_SHIPPED = CheckpointOptions()


@dataclasses.dataclass(frozen=True)
class Feed:
    """The data of a stage.

    flip: mirror each training image with probability 1/2.
    crops: take random crops of the training pictures.
    threads, workers: what reads training batches, as `data.pipeline.Batches` says.
    """

    train: Source
    heldout: Source
    flip: bool = False
    threads: int = 0
    workers: int = 0
    crops: bool = False


def train(
    task: Task,
    feed: Feed,
    folder: Path,
    log: RunLog,
    peak_flops: float,
    show: Callable[[int, UInt8[np.ndarray, "n h w c"]], None],
    curve: Curve | None = None,
    initial_params: Callable[[], dict | None] = lambda: None,
    kept: CheckpointOptions = AS_SHIPPED,
) -> dict:
    """Trains to the last step, from the newest checkpoint in `folder` if there is one.

    Scores of the `curve` become rows of the log with `images_trained` and `training_seconds`: of
    all starts, without the first step of each (which compiles), previews and scoring.

    Args:
      peak_flops: FLOP/s of all devices, for the model FLOP utilisation.
      show: called as `show(step, images)` with preview images.
      initial_params: gives host arrays or stored tensors to start from; None: random parameters.
        Called only where there is no checkpoint.
      kept: how many checkpoints are kept, and where.

    Returns:
      The parameters that `options.weights` names, the average or the raw ones, sharded.

    Raises:
      Interrupted: a signal stopped the run; a checkpoint of this step has been saved.
      UserError: the loss is not finite, or the checkpoint does not fit.
    """
    options, name, steps = task.options, task.name, task.options.steps
    checkpoints = Checkpoints(folder, kept.keep_last, kept.store)
    snapshots = snapshot_folder(folder)

    # Data. The order depends on the seed alone, not on the stage's place in the run.
    sharding = batch_sharding(task.mesh)
    batches = Batches(
        feed.train,
        options.batch_size,
        task.seed,
        sharding,
        feed.flip,
        feed.threads,
        feed.workers,
        feed.crops,
    )

    # State: created on its shardings, or restored onto them.
    resumed = checkpoints.newest_whole()
    if resumed is None:
        state, data_state = task.initial_state(initial_params()), {}
    else:
        state, data_state = checkpoints.restore(resumed, task.abstract_state)
        batches.set_state(data_state)
        log.print(f"{name}: resuming from step {resumed:,} of {steps:,}")
    first = resumed or 0
    log.drop_rows_after(name, first, data_state.get("rows", 0))
    delete_snapshots_after(snapshots, first)

    # Log and evaluation.
    count, size = snapshot_totals(options, task.abstract_state["params"])
    if count:
        log.print(f"{name}: stores {count:,} snapshots of averages, {in_bytes(size)} in all")
    throughput = Throughput(options.batch_size, _flops(task, feed.train), peak_flops)
    timer = TrainingTimer(log.training_seconds(name, first))
    skipped = int(state["progress"]["step"]) - int(state["progress"]["updates"])
    step_log = StepLog(task, log, throughput, timer, skipped)
    best = None
    if curve and curve.keep_best:
        best = KeepBest(folder, curve.keep_best, curve.lower, log.path, name, first)
    evaluator = Evaluator(task, feed.heldout, step_log, show, curve, best)

    with contextlib.closing(batches), checkpoints, StopRequest(options.log_every) as stop:
        if steps == 0 and resumed is None:  # published weights, used as they are
            checkpoints.save(0, state, batches.state)
            evaluator.preview(0, state[task.weights_item])
        fed = {}  # the last two batches by their steps: numbers are read one step late
        try:
            for step in range(first + 1, steps + 1):
                with step_log.waiting_for_input():
                    batch = next(batches)
                fed = {n: fed[n] for n in fed if n == step - 1} | {step: batch}
                state, metrics = task.train_step(state, task.frozen, fed[step])
                stop.worth_saving = True
                step_log.add(step, metrics)  # reads the numbers of the step before

                last = step == steps
                stopping = stop.agreed(step, last)
                saving = last or stopping or step % options.checkpoint_every == 0
                if saving or snapshot_due(options, step) or evaluator.due(step):
                    step_log.flush()  # reads those of this step: nothing below if they are NaN
                if snapshot_due(options, step):  # first: a checkpoint never lacks its snapshots
                    updates = int(state["progress"]["updates"])
                    save_snapshots(snapshots, step, updates, state["profiles"])
                if saving:
                    read = batches.state | {"rows": log.rows(name)}
                    checkpoints.save(step, state, read)
                if evaluator.due(step):  # before `poll`: a complete checkpoint never lacks its rows
                    evaluator.evaluate(step, state)
                if stopping:
                    checkpoints.close()
                    raise Interrupted(f"{name}: saved at step {step:,} of {steps:,}")
                if saving:
                    give_back()  # what saving and previews took; the next step takes its own
                checkpoints.poll()
            if stop.agreed(steps, last=True):  # a signal while the last was saved and evaluated
                checkpoints.close()
                raise Interrupted(f"{name}: saved at step {steps:,} of {steps:,}")
        except NotFinite as error:
            place = folder.with_name(f"{folder.name}-nonfinite")
            with Checkpoints(place, store=kept.store) as dump:
                dump.save(error.step, state, batches.state)
            checkpoints.close()
            fix = frozen_cause(task, feed.train, error.step, fed[error.step]) or (
                f"lower config.{name}.optimizer.learning_rate, clip more by "
                f"config.{name}.optimizer.clip_norm (0 is off), or allow skips with "
                f"config.{name}.skip_nonfinite"
            )
            raise UserError(
                f"{name}: {error}; the state is dumped in {folder}-nonfinite; {fix}."
            ) from error
    return state[task.weights_item]


def _flops(task: Task, source: Source) -> float:
    """Of one training step on examples of `source`."""
    example = source.stored(np.zeros(1, int))
    shapes = {name: (array.shape[1:], array.dtype) for name, array in example.items()}
    params, batch_size = task.abstract_state["params"], task.options.batch_size
    return step_flops(task.method, params, task.frozen, shapes, batch_size)
