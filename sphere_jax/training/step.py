"""The train step: one pure function of (state, frozen, batch), jitted once, donated, sharded."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from sphere_jax.config.options import StageOptions
from sphere_jax.training.averages import update_ema
from sphere_jax.training.ema_profiles import update_profile

# {"progress": {"step", "updates", "key"}, "params", "ema", "optimizer", "profiles": {width: ...}}
State = dict
Params = PyTree[Float[Array, "..."]]


def init_state(
    method: Any,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    frozen: dict,
    params: Params | None = None,
    widths: tuple[float, ...] = (),
) -> State:
    """The state before the first step. Run under jit with output shardings.

    Scalars: `step` and `updates` int32, `key` a typed key. `ema` and every tree of `profiles` are
    float32 with the shapes of `params`.

    Args:
      params: to start from, instead of `method.init`; what they lack is from there.
      widths: relative widths of the averages with power-function profiles.
    """

    def copy():
        return jax.tree.map(lambda p: p.astype(jnp.float32) + 0.0, params)

    init_key, train_key = jax.random.split(key)
    params = _with_drawn(params, lambda: method.init(init_key, frozen))
    return {
        # `step` counts batches, `updates` those that were applied (all, unless a NaN was skipped).
        "progress": {"step": jnp.int32(0), "updates": jnp.int32(0), "key": train_key},
        "params": params,
        "ema": copy(),
        "optimizer": optimizer.init(params),
        "profiles": {str(width): copy() for width in widths},
    }


def _with_drawn(params: Params | None, draw: Callable[[], Params]) -> Params:
    """A tree of parameters with what it lacks from another one."""

    def filled(given, drawn):
        if not isinstance(drawn, dict):
            return given
        missing = {key: drawn[key] for key in drawn.keys() - given.keys()}
        return {key: filled(given[key], drawn[key]) for key in given} | missing

    return draw() if params is None else filled(params, draw())


def make_train_step(
    method: Any, options: StageOptions, optimizer: optax.GradientTransformation
) -> Callable:
    """`(state, frozen, batch) -> state, metrics`, for batches {name: (B, ...)} and scalar metrics.

    The gradient of `accumulate` micro-batches is that of the whole batch: the random keys of a
    sample (`method.keys`) do not depend on how the batch is split. A step whose loss or gradient is
    not finite leaves parameters, moments and averages unchanged; `metrics["finite"]` is then False.
    """

    def gradient(params, frozen, batch, keys):
        (loss, metrics), grads = jax.value_and_grad(method.loss, has_aux=True)(
            params, frozen, batch, keys
        )
        return {"loss": loss, **metrics}, grads

    def accumulated(params, frozen, batch, keys):
        parts = options.accumulate
        if parts == 1:
            return gradient(params, frozen, batch, keys)

        # Micro-batch i holds samples i, i + A, i + 2A, ...: strided, so that a batch split over
        # devices stays where it is.
        def strided(x):
            return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

        def add(total, micro):
            return jax.tree.map(jnp.add, total, gradient(params, frozen, *micro)), None

        micro = jax.tree.map(strided, (batch, keys))
        first = gradient(params, frozen, *jax.tree.map(lambda x: x[0], micro))
        rest = jax.tree.map(lambda x: x[1:], micro)
        total, _ = jax.lax.scan(add, first, rest)
        return jax.tree.map(lambda x: x / parts, total)

    def train_step(state: State, frozen, batch):
        size = len(batch["labels"])
        progress = state["progress"]
        step_key = jax.random.fold_in(progress["key"], progress["step"])
        keys = method.keys(step_key, size)
        if schedule := method.schedule(progress["step"]):
            frozen = frozen | {"schedule": schedule}
        metrics, grads = accumulated(state["params"], frozen, batch, keys)

        norm = optax.tree.norm(grads)
        if options.optimizer.clip_norm > 0:
            grads = _clipped(grads, options.optimizer.clip_norm, method.clipped_apart)
        updates, moments = optimizer.update(grads, state["optimizer"], state["params"])
        for part, start in method.joins.items():
            joined = progress["step"] >= start
            updates[part] = jax.tree.map(lambda u, on=joined: jnp.where(on, u, 0), updates[part])
        params = method.advance(optax.apply_updates(state["params"], updates))
        ema = update_ema(state["ema"], params, options.ema_decay, progress["updates"])
        profiles = {
            width: update_profile(average, params, float(width), progress["updates"])
            for width, average in state["profiles"].items()
        }

        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)

        def if_finite(new, old):
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        new_state = {
            "progress": {
                "step": progress["step"] + 1,
                "updates": progress["updates"] + finite.astype(jnp.int32),
                "key": progress["key"],
            },
            "params": if_finite(params, state["params"]),
            "ema": if_finite(ema, state["ema"]),
            "optimizer": if_finite(moments, state["optimizer"]),
            "profiles": if_finite(profiles, state["profiles"]),
        }
        return new_state, {**metrics, "gradient_norm": norm, "finite": finite}

    return train_step


def _clipped(grads: dict, limit: float, apart: tuple[str, ...]) -> dict:
    """Scaled down to a norm of at most `limit`: each part named in `apart` separately, the others
    together.

    Otherwise the gradient of a discriminator would limit the step of its generator, and vice versa.
    """
    together = {name: tree for name, tree in grads.items() if name not in apart}
    clipped = {}
    for group in (together, *({name: grads[name]} for name in apart)):
        scale = jnp.minimum(1.0, limit / jnp.maximum(optax.tree.norm(group), 1e-12))
        clipped |= jax.tree.map(lambda g, scale=scale: g * scale, group)
    return clipped
