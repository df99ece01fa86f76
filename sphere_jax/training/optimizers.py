"""AdamW with a schedule, decay on matrices only, and global-norm clipping."""

import jax
import optax

from sphere_jax.options import Optimizer


def schedule(settings: Optimizer, steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant or a cosine that ends `hold` steps before the last."""
    peak, warmup = settings.learning_rate, settings.warmup
    if settings.schedule == "cosine":
        rest = optax.cosine_decay_schedule(
            peak, max(steps - warmup - settings.hold, 1), settings.final_fraction
        )
    else:
        rest = optax.constant_schedule(peak)
    if warmup == 0:
        return rest
    # One step past zero, so that the first update is not empty.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, rest], [warmup])


def make_optimizer(
    settings: Optimizer, steps: int, rates: dict[str, float] | None = None
) -> optax.GradientTransformation:
    """The stage's optimizer. Clipping needs the gradient norm, which the step measures anyway, so
    it is done there (`training/step.py`) and not in the chain.

    `rates` multiply the learning rate, and with it the decay, of the parts that they name.
    """
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
