"""AdamW with a schedule, decay on matrices only, and global-norm clipping."""

import jax
import optax

from sphere_jax.config.options import Optimizer


def schedule(settings: Optimizer, steps: int) -> optax.Schedule:
    """Linear warm-up from 0, `constant_steps` at the peak, then a fall.

    The fall is a cosine or a line to `final_fraction` of the peak, and ends `hold` steps before the
    stage does, or takes `fall_steps`, however long the stage is. A constant schedule has none.
    """
    peak, warmup = settings.learning_rate, settings.warmup
    falls_at = warmup + settings.constant_steps
    length = settings.fall_steps or max(steps - falls_at - settings.hold, 1)
    fall = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, length, settings.final_fraction),
        "linear": optax.linear_schedule(peak, settings.final_fraction * peak, length),
    }[settings.schedule]
    parts, ends = [], []
    if warmup:  # from one step past zero, so that the first update is not empty
        parts.append(optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1)))
        ends.append(warmup)
    if settings.constant_steps:
        parts.append(optax.constant_schedule(peak))
        ends.append(falls_at)
    return optax.join_schedules([*parts, fall], ends) if parts else fall


def make_optimizer(
    settings: Optimizer, steps: int, rates: dict[str, float] | None = None
) -> optax.GradientTransformation:
    """The stage's optimizer. Clipping needs the gradient norm, which the step measures anyway, so
    it is done there (`training/step.py`) and not in the chain.

    `rates` multiply the learning rate, and with it the decay, of the parts that they name. For a
    stage of no steps, which takes published weights as they are, there are no moments to keep.
    """
    if steps == 0:
        return optax.identity()
    adamw = optax.adamw(
        schedule(settings, steps),
        b1=settings.b1,
        b2=settings.b2,
        weight_decay=settings.weight_decay,
        mask=lambda params: jax.tree_util.tree_map_with_path(_decays, params),
    )
    return optax.chain(adamw, _scale_parts(rates)) if rates else adamw


def _scale_parts(rates: dict[str, float]) -> optax.GradientTransformation:
    def scaled(tree, rate):
        return jax.tree.map(lambda update: rate * update, tree)

    return optax.stateless(
        lambda updates, params: {k: scaled(tree, rates.get(k, 1.0)) for k, tree in updates.items()}
    )


def _decays(path, leaf) -> bool:
    """Not by the number of axes alone: blocks are stacked, so their biases have two."""
    return leaf.ndim > 1 and path[-1].key not in ("bias", "scale")
