"""AdamW with a schedule, decay on matrices only; Muon for the matrices where a config says so."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float32
from optax.contrib import MuonDimensionNumbers

from sphere_jax.config.options import OptimizerOptions


def schedule(options: OptimizerOptions, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, `constant_steps` at the peak, then a decay.

    The decay is a cosine or a line to `final_fraction` of the peak. It ends `hold` steps before the
    end of the stage, or takes `fall_steps`, whatever the length of the stage. A constant schedule
    has none.
    """
    peak, warmup = options.learning_rate, options.warmup
    decay_start = warmup + options.constant_steps
    length = options.fall_steps or max(steps - decay_start - options.hold, 1)
    last = options.final_fraction * peak
    line = optax.linear_schedule(peak, last, length)
    decay = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, length, options.final_fraction),
        "linear": lambda step: jnp.maximum(line(step), last),  # compiled, a line may end below
    }[options.schedule]
    parts, ends = [], []
    if warmup:  # starts one step after zero, so that the first update is not empty
        parts.append(optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1)))
        ends.append(warmup)
    if options.constant_steps:
        parts.append(optax.constant_schedule(peak))
        ends.append(decay_start)
    return optax.join_schedules([*parts, decay], ends) if parts else decay


def learning_rates(options: OptimizerOptions, steps: int) -> Float32[np.ndarray, " {steps}"]:
    """The learning rate of every update, on the host: reading one does not wait for the device."""
    # One program: eagerly it is one for each operation. A round length lets one program serve many
    # stages, and leaves no remainder for other instructions, which might round otherwise.
    padded = np.arange(-(-steps // 1024) * 1024)
    rates = np.asarray(jax.jit(schedule(options, steps))(padded), np.float32)
    return np.broadcast_to(rates, padded.shape)[:steps]


def make_optimizer(
    options: OptimizerOptions,
    steps: int,
    rates: dict[str, float] | None = None,
    starts: dict[str, int] | None = None,
) -> optax.GradientTransformation:
    """AdamW for parameters {part: tree}. Clipping is done in `training/step.py`, which needs the
    gradient norm anyway, and not here.

    `rates` multiply the learning rate, and with it the weight decay, of the parts that they name. A
    stage of 0 steps, which uses published weights as they are, stores no moments. A part with a
    step in `starts` learns from there on, and so do its moments and its schedule, which are its
    own and of the same length (as RAE's discriminator's).
    """
    if steps == 0:
        return optax.identity()
    late = {name: start for name, start in (starts or {}).items() if start > 0}
    if late:
        own = {
            name: _from_step(start, make_optimizer(options, steps, rates))
            for name, start in late.items()
        }
        return optax.partition(
            own | {"": make_optimizer(options, steps, rates)},
            lambda params: {
                k: jax.tree.map(lambda _, k=k: k if k in late else "", tree)
                for k, tree in params.items()
            },
        )
    rate = schedule(options, steps)
    adamw = optax.adamw(
        rate,
        b1=options.b1,
        b2=options.b2,
        eps=options.eps,
        weight_decay=options.weight_decay,
        mask=lambda params: jax.tree_util.tree_map_with_path(_decays, params),
    )
    optimizer = adamw if options.matrices == "adamw" else _with_muon(options, rate, adamw)
    return optax.chain(optimizer, _scale_parts(rates)) if rates else optimizer


def _with_muon(
    options: OptimizerOptions, rate: optax.Schedule, adamw: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Muon for matrices, `adamw` for all others: one mask, `is_matrix`."""

    def dimensions(params):  # the axes before these two are the depth of a stack
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: MuonDimensionNumbers(-2, -1) if is_matrix(path, leaf) else None,
            params,
        )

    muon = optax.contrib.muon(
        lambda step: options.muon_rate * rate(step),
        beta=options.muon_momentum,
        weight_decay=options.muon_decay,
        muon_weight_dimension_numbers=dimensions,
    )
    return optax.partition({"muon": muon, "adamw": adamw}, muon_labels)


def muon_labels(params: Any) -> Any:
    """ "muon" or "adamw" for every array of a tree, or of its shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: "muon" if is_matrix(path, leaf) else "adamw", params
    )


def is_matrix(path: tuple, leaf: Any) -> bool:
    """Whether Muon updates a parameter: the kernel of a linear layer, alone or stacked over depth.

    A stack adds one axis, and its path has the key "layers"; kernels of convolutions have more
    axes, and tables of embeddings and positions are no kernels.
    """
    names = [key.key for key in path]
    return names[-1] == "kernel" and leaf.ndim - names.count("layers") == 2


def _from_step(start: int, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` from that step on, no updates before."""

    def init(params):
        return {"step": jnp.int32(0), "inner": inner.init(params)}

    def update(grads, state, params=None):
        updates, new = inner.update(grads, state["inner"], params)
        started = state["step"] >= start
        updates = jax.tree.map(lambda u: jnp.where(started, u, 0), updates)
        kept = jax.tree.map(lambda n, o: jnp.where(started, n, o), new, state["inner"])
        return updates, {"step": state["step"] + 1, "inner": kept}

    return optax.GradientTransformation(init, update)


def _scale_parts(rates: dict[str, float]) -> optax.GradientTransformation:
    def scaled(tree, rate):
        return jax.tree.map(lambda update: rate * update, tree)

    return optax.stateless(
        lambda updates, params: {k: scaled(tree, rates.get(k, 1.0)) for k, tree in updates.items()}
    )


def _decays(path, leaf) -> bool:
    """Not the number of axes alone: the biases of stacked blocks have two."""
    return leaf.ndim > 1 and path[-1].key not in ("bias", "scale")
