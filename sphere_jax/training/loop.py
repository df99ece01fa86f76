"""The one loop: mesh -> data -> sharded init -> restore -> step -> (log, save, look)."""

import dataclasses
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import in_bytes
from sphere_jax.common.progress import duration
from sphere_jax.config.options import Stage
from sphere_jax.data.pipeline import Batches, to_device, to_host
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import batch_sharding, put_global, replicated, tree_shardings
from sphere_jax.nn.compilation import quick_products, run_once_options
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.ema_snapshots import (
    forget_snapshots_after,
    is_due,
    planned,
    save_snapshots,
    snapshot_folder,
)
from sphere_jax.training.flops import step_flops
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.run_log import Meter, RunLog, Stopwatch
from sphere_jax.training.signals import Interrupted, StopRequest
from sphere_jax.training.step import init_state, make_train_step

HELDOUT_EXAMPLES = 512
STATE_ITEM = {"ema": "ema", "raw": "params"}  # of the train state, by `Stage.weights`


@dataclasses.dataclass(frozen=True)
class Task:
    """All that the loop needs to know of a stage."""

    name: str
    method: object
    settings: Stage
    train: Source
    heldout: Source
    frozen: dict  # sharded arrays from earlier stages, or their shapes
    seed: int
    flip: bool = False
    threads: int = 0


def abstract_state(task: Task, mesh):
    """Shapes, dtypes and shardings of the train state; nothing is allocated."""
    optimizer = make_optimizer(task.settings.optimizer, task.settings.steps, task.method.rates)
    shapes = jax.eval_shape(
        lambda key, frozen: init_state(
            task.method, optimizer, key, frozen, widths=task.settings.ema_profiles
        ),
        stage_key(task.seed, task.name),
        task.frozen,
    )
    shardings = tree_shardings(mesh, shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def stage_key(seed: int, name: str) -> jax.Array:
    """The key of a stage: another stage of the same run draws other numbers."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


@dataclasses.dataclass(frozen=True)
class Curve:
    """Scores while a stage trains: `score(params) -> {name: number}` `every` so many steps and at
    the last one."""

    score: Callable[[dict], dict[str, float]]
    every: int


def train(
    task: Task,
    mesh,
    folder: Path,
    log: RunLog,
    peak_flops: float,
    show,
    curve: Curve | None = None,
) -> dict:
    """Trains to the last step, from the newest checkpoint in `folder` if there is one.

    `show(step, pictures)` is given what `method.preview` drew. Scores of the `curve` become rows of
    the log with `images_trained` and `training_seconds`, those of all starts without the first step
    of each (which compiles), previews and scoring. Returns the parameters that `settings.weights`
    names, the average or the raw ones, sharded.

    Raises:
      Interrupted: a signal asked to stop; a checkpoint of this very step has been saved.
      UserError: the loss is not finite, or the checkpoint does not fit.
    """
    settings, method, name = task.settings, task.method, task.name
    checkpoints = Checkpoints(folder)

    # Data. The order is a function of the seed, not of the stage's place in the run.
    batches = Batches(
        task.train, settings.batch_size, task.seed, batch_sharding(mesh), task.flip, task.threads
    )

    # State: born sharded, or restored onto the same shardings.
    optimizer = make_optimizer(settings.optimizer, settings.steps, method.rates)
    frozen = task.frozen
    abstract = abstract_state(task, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    latest = checkpoints.latest()
    if latest is None:
        begin = method.begin()
        if begin is not None:
            begin = put_global(mesh, begin, shardings["params"])
        init = jax.jit(
            lambda key, frozen, begin: init_state(
                method, optimizer, key, frozen, begin, settings.ema_profiles
            ),
            out_shardings=shardings,
            compiler_options=run_once_options(),
            donate_argnums=2,
        )
        state, first, skipped = init(stage_key(task.seed, name), frozen, begin), 0, 0
    else:
        state, data_state = checkpoints.restore(latest, abstract)
        batches.set_state(data_state)
        first = latest
        skipped = int(state["progress"]["step"] - state["progress"]["updates"])
        log.say(f"{name}: goes on from step {latest:,} of {settings.steps:,}")
    log.forget_after(name, first)
    snapshots = snapshot_folder(folder)
    forget_snapshots_after(snapshots, first)
    count, size = planned(settings, abstract["params"])
    if count:
        log.say(f"{name}: keeps {count:,} snapshots of averages, {in_bytes(size)} in all")

    # Step: compiled once, before the clock starts.
    train_step = jax.jit(
        make_train_step(method, settings, optimizer),
        donate_argnums=0,
        out_shardings=(shardings, replicated(mesh)),
        compiler_options=quick_products() if method.is_transformer else {},
    )
    read = task.train.read(np.zeros(1, int))
    shapes = {name: (array.shape[1:], array.dtype) for name, array in read.items()}
    flops = step_flops(method, abstract["params"], frozen, shapes, settings.batch_size)
    meter = Meter(settings.batch_size, flops, peak_flops)
    watch = Stopwatch(log.seconds_before(name, first))
    heldout = _HeldOut(task, frozen, mesh)

    def save(step):
        checkpoints.save(step, state, batches.state)

    def snapshot(step):
        updates = int(state["progress"]["updates"])
        save_snapshots(snapshots, step, updates, state["profiles"])

    def look(step):
        metrics = heldout.metrics(state[STATE_ITEM[settings.weights]])
        log.write(name, step, metrics)
        log.say(f"{name} {step:,}/{settings.steps:,}  held-out loss {metrics['heldout_loss']:.4f}")
        pictures = heldout.pictures(state[STATE_ITEM[settings.weights]])
        if pictures is not None:
            show(step, pictures)

    def score(step):
        started, params = time.monotonic(), state[STATE_ITEM[settings.weights]]
        spent = {"images_trained": step * settings.batch_size, "training_seconds": watch.seconds}
        metrics = curve.score(params)
        log.write(name, step, metrics | spent)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        took = duration(time.monotonic() - started)
        log.say(f"{name} {step:,}/{settings.steps:,}  {shown}  (in {took})")

    def settle():
        """Reads the numbers of the step before, which waits for that step and not for this one."""
        nonlocal pending, skipped
        if pending is None:
            return
        (step, metrics), pending = pending, None
        numbers = {k: float(v) for k, v in jax.device_get(metrics).items()}
        if not numbers["finite"]:
            skipped += 1
            if skipped > settings.skip_nonfinite:
                stop_at_nonfinite(step, numbers)
            log.say(f"{name}: the loss or gradient of step {step:,} is not finite; left out")
        if step % settings.log_every == 0 or step == settings.steps or not numbers["finite"]:
            report(step, numbers)

    def stop_at_nonfinite(step, numbers):
        log.write(name, step, numbers)
        with Checkpoints(folder.with_name(f"{folder.name}-nonfinite")) as dump:
            dump.save(step, state, batches.state)
        checkpoints.close()
        bad = [k for k, v in numbers.items() if not np.isfinite(v)]
        raise UserError(
            f"{name}: not finite at step {step:,}: {', '.join(bad)}; the state is dumped "
            f"in {folder}-nonfinite; lower config.{name}.optimizer.learning_rate, set "
            f"config.{name}.optimizer.clip_norm, or allow skips with config.{name}.skip_nonfinite."
        )

    def report(step, numbers):
        rates = meter.rates()
        log.write(name, step, numbers | rates | {"training_seconds": watch.seconds})
        line = f"{name} {step:,}/{settings.steps:,}  loss {numbers['loss']:.4f}"
        if rates:
            left = (settings.steps - step) / rates["steps_per_second"]
            line += (
                f"  {rates['images_per_second']:,.0f} img/s  "
                f"MFU {100 * rates['model_flop_utilisation']:.0f}%  {duration(left)} left"
            )
        log.say(line)

    pending = None  # (step, metrics) still on the device
    started = time.monotonic()
    with checkpoints, StopRequest() as stop:
        if settings.steps == 0 and latest is None:
            save(0)
            look(0)
        for step in range(first + 1, settings.steps + 1):
            state, metrics = train_step(state, frozen, next(batches))
            settle()
            pending = (step, metrics)
            if step == first + 1:
                jax.block_until_ready(metrics)
                log.say(f"{name}: compiled and ready after {duration(time.monotonic() - started)}")
                meter.restart()
                watch.start()
            else:
                meter.step_done()

            last = step == settings.steps
            if is_due(settings, step):
                settle()
                snapshot(step)  # before the checkpoint: what is resumed from has its snapshots
            stopping = stop.agreed(meet=last or step % settings.log_every == 0)
            if last or stopping or step % settings.checkpoint_every == 0:
                settle()
                save(step)
            looks = last or step % settings.preview_every == 0
            scores = curve is not None and (last or step % curve.every == 0)
            if looks or scores:
                settle()
                with watch.pause():
                    if looks:
                        look(step)
                    if scores:  # before the checkpoint is sealed, so that no row can be missing
                        score(step)
                meter.restart()
            if stopping:
                checkpoints.close()
                raise Interrupted(f"{name}: saved at step {step:,} of {settings.steps:,}")
            checkpoints.poll()
    return state[STATE_ITEM[settings.weights]]


class _HeldOut:
    """The loss on fixed held-out examples with fixed noise, and pictures to look at.

    Batches are at most as large as a micro-batch of training, which the devices can hold.
    """

    def __init__(self, task: Task, frozen, mesh):
        devices, settings = mesh.devices.size, task.settings
        most = min(HELDOUT_EXAMPLES, len(task.heldout))
        micro = min(settings.batch_size // settings.accumulate, most)
        size = max(micro // devices, 1) * devices
        starts = range(0, max(most // size, 1) * size, size)
        draws = task.method.draws(stage_key(task.seed, "held-out"), starts[-1] + size)

        def batch(start):
            rows = np.arange(start, start + size)
            found = task.heldout.read(rows % len(task.heldout))
            placed = to_device(found, np.arange(size), size, batch_sharding(mesh))
            return placed, jax.tree.map(lambda drawn: drawn[start : start + size], draws)

        self._batches = [batch(start) for start in starts]
        few = task.heldout.read(np.linspace(0, len(task.heldout) - 1, 16).astype(int))
        self._few = put_global(mesh, few, {name: replicated(mesh) for name in few})
        self._key, self._frozen = stage_key(task.seed, "held-out"), frozen
        self._loss = jax.jit(task.method.loss)
        self._preview = jax.jit(task.method.preview)

    def metrics(self, params) -> dict[str, float]:
        found = [self._loss(params, self._frozen, *batch) for batch in self._batches]
        fetched = jax.device_get([{"loss": loss, **metrics} for loss, metrics in found])
        return {
            f"heldout_{name}": float(np.mean([batch[name] for batch in fetched]))
            for name in fetched[0]
        }

    def pictures(self, params) -> np.ndarray | None:
        pictures = self._preview(params, self._frozen, self._few, self._key)
        return None if pictures is None else to_host(pictures)
