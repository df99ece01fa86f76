"""The loss on held-out examples, with the same noise every time, and preview images."""

import jax
import numpy as np
from jaxtyping import UInt8

from sphere_jax.data.pipeline import to_device, to_host
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import batch_sharding, put_global, replicated
from sphere_jax.training.task import Task, stage_key

LOSS_EXAMPLES = 512  # at most
PREVIEW_EXAMPLES = 16


class HeldOut:
    """Batches are at most as large as a micro-batch of training, so they fit on the devices. How
    many of LOSS_EXAMPLES fill whole batches may depend on their number."""

    def __init__(self, task: Task, source: Source):
        devices, options = task.mesh.devices.size, task.options
        sharding = batch_sharding(task.mesh)
        most = min(LOSS_EXAMPLES, len(source))
        micro = min(options.batch_size // options.accumulate, most)
        size = max(micro // devices, 1) * devices
        starts = range(0, max(most // size, 1) * size, size)
        key = stage_key(task.seed, "held-out")
        keys = task.method.keys(key, starts[-1] + size)

        def batch(start):
            rows = np.arange(start, start + size) % len(source)
            placed = to_device(source.read(rows), np.arange(size), size, sharding)
            return placed, jax.tree.map(lambda all_keys: all_keys[start : start + size], keys)

        self._batches = [batch(start) for start in starts]
        spread = np.linspace(0, len(source) - 1, PREVIEW_EXAMPLES).astype(int)
        examples = source.read(spread)
        everywhere = dict.fromkeys(examples, replicated(task.mesh))
        self._examples = put_global(task.mesh, examples, everywhere)
        self._task, self._key = task, key

    def metrics(self, params: dict) -> dict[str, float]:
        """`{"heldout_loss": ..., "heldout_NAME": ...}`, means over the batches."""
        found = [self._task.loss(params, self._task.frozen, *batch) for batch in self._batches]
        fetched = jax.device_get([{"loss": loss, **metrics} for loss, metrics in found])
        return {
            f"heldout_{name}": float(np.mean([batch[name] for batch in fetched]))
            for name in fetched[0]
        }

    def preview(self, params: dict) -> UInt8[np.ndarray, "n h w c"] | None:
        """Images, or None from a method that has none."""
        task = self._task
        images = task.preview(params, task.frozen, self._examples, self._key)
        return None if images is None else to_host(images)
