"""The train step: one pure function of (state, frozen, batch), jitted once, donated, sharded."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from sphere_jax.config.options import Stage
from sphere_jax.training.averages import update_ema
from sphere_jax.training.ema_profiles import update_profile

# {"progress": {"step", "updates", "key"}, "params", "ema", "optimizer", "profiles": {width: ...}}
State = dict


def init_state(
    method,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    frozen,
    params=None,
    widths: tuple[float, ...] = (),
) -> State:
    """The state before the first step. Run under jit with output shardings.

    `params` are parameters to begin from, instead of fresh ones; `widths` those of the averages
    with power-function profiles.
    """

    def copy():
        return jax.tree.map(lambda p: p.astype(jnp.float32) + 0.0, params)

    init_key, train_key = jax.random.split(key)
    params = method.init(init_key, frozen) if params is None else params
    return {
        # `step` counts batches, `updates` those that were applied (all, unless a NaN was skipped).
        "progress": {"step": jnp.int32(0), "updates": jnp.int32(0), "key": train_key},
        "params": params,
        "ema": copy(),
        "optimizer": optimizer.init(params),
        "profiles": {str(width): copy() for width in widths},
    }


def make_train_step(method, settings: Stage, optimizer: optax.GradientTransformation) -> Callable:
    """`(state, frozen, batch) -> state, metrics`.

    The gradient of `accumulate` micro-batches is that of the whole batch: what a sample draws
    (`method.draws`) does not depend on how the batch is split. A step whose loss or gradient is not
    finite leaves parameters, moments and average as they were, and says so in `metrics["finite"]`.
    """

    def gradient(params, frozen, batch, draws):
        (loss, metrics), grads = jax.value_and_grad(method.loss, has_aux=True)(
            params, frozen, batch, draws
        )
        return {"loss": loss, **metrics}, grads

    def accumulated(params, frozen, batch, draws):
        parts = settings.accumulate
        if parts == 1:
            return gradient(params, frozen, batch, draws)

        # Micro-batch i holds samples i, i + A, i + 2A, ...: strided, so that a batch split over
        # devices stays where it is.
        def strided(x):
            return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

        def add(total, micro):
            return jax.tree.map(jnp.add, total, gradient(params, frozen, *micro)), None

        micro = jax.tree.map(strided, (batch, draws))
        first = gradient(params, frozen, *jax.tree.map(lambda x: x[0], micro))
        rest = jax.tree.map(lambda x: x[1:], micro)
        total, _ = jax.lax.scan(add, first, rest)
        return jax.tree.map(lambda x: x / parts, total)

    def train_step(state: State, frozen, batch):
        size = len(batch["labels"])
        progress = state["progress"]
        step_key = jax.random.fold_in(progress["key"], progress["step"])
        draws = method.draws(step_key, size)
        if schedule := method.schedule(progress["step"]):
            frozen = frozen | {"schedule": schedule}
        metrics, grads = accumulated(state["params"], frozen, batch, draws)

        norm = optax.tree.norm(grads)
        if settings.optimizer.clip_norm > 0:
            grads = _clipped(grads, settings.optimizer.clip_norm, method.clipped_apart)
        updates, moments = optimizer.update(grads, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        ema = update_ema(state["ema"], params, settings.ema_decay, progress["updates"])
        profiles = {
            width: update_profile(average, params, float(width), progress["updates"])
            for width, average in state["profiles"].items()
        }

        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)

        def keep(new, old):
            return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        new_state = {
            "progress": {
                "step": progress["step"] + 1,
                "updates": progress["updates"] + finite.astype(jnp.int32),
                "key": progress["key"],
            },
            "params": keep(params, state["params"]),
            "ema": keep(ema, state["ema"]),
            "optimizer": keep(moments, state["optimizer"]),
            "profiles": keep(profiles, state["profiles"]),
        }
        return new_state, {**metrics, "gradient_norm": norm, "finite": finite}

    return train_step


def _clipped(grads: dict, limit: float, apart: tuple[str, ...]) -> dict:
    """Scaled down to a norm of at most `limit`: each part of `apart` by itself, the others in one.

    An adversary's gradient would else decide how far its opponent may go, and the other way round.
    """
    together = {name: tree for name, tree in grads.items() if name not in apart}
    clipped = {}
    for group in (together, *({name: grads[name]} for name in apart)):
        scale = jnp.minimum(1.0, limit / jnp.maximum(optax.tree.norm(group), 1e-12))
        clipped |= jax.tree.map(lambda g, scale=scale: g * scale, group)
    return clipped
