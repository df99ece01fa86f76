"""Why a step is not finite, where frozen parts are the cause: an encoder, say, that makes NaN."""

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.data.lazy_pictures import name_of
from sphere_jax.data.pipeline import Batch, index_batches, to_host
from sphere_jax.data.source import Source
from sphere_jax.training.task import Task


def frozen_cause(task: Task, source: Source, step: int, batch: Batch) -> str:
    """A sentence on the examples of `batch`, that of `step`, of which the frozen parts make
    something that is not finite; "" where there are none."""

    @jax.jit
    def wrong(frozen, batch):
        made = task.method.made_by_frozen(frozen, batch)
        return None if made is None else ~jnp.isfinite(made).all(tuple(range(1, made.ndim)))

    found = wrong(task.frozen, batch)
    places = [] if found is None else np.flatnonzero(to_host(found))
    if not len(places):
        return ""
    size = task.options.batch_size
    rows, _ = index_batches(len(source), size, task.seed)[step - 1]
    found = name_of(source.arrays.get("images", source.labels), int(rows[places[0]]))
    if more := len(places) - 1:
        found += f" and {more} more of the {size} images of this step"
    return (
        f"the frozen tokenizer gives latents that are not finite for {found}: check its weights, "
        "or leave such images out"
    )
