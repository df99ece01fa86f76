"""The classes that samples are drawn for: in equal numbers, at random, or some of them in turn."""

import zlib

import numpy as np
from jaxtyping import Int32

from sphere_jax.data.class_names import Classes, parse_labels
from sphere_jax.runs.drawing import balanced_labels

Labels = Int32[np.ndarray, " n"]
BALANCED, RANDOM = "balanced", "random"
STREAM = zlib.crc32(b"labels")  # of random numbers: none that noise is made of


def random_labels(count: int, num_classes: int, seed: int) -> Labels:
    """Independent and uniform, as most published samplers draw them; the label of sample i is a
    function of (seed, i) alone."""
    rng = np.random.default_rng([STREAM, seed])
    return rng.integers(num_classes, size=count, dtype=np.int32)


def chosen_labels(
    text: str, classes: Classes, count: int, seed: int
) -> tuple[Int32[np.ndarray, " n"], str]:
    """`count` labels, and how they were chosen, for the protocol.

    Args:
      text: "balanced" or "", "random", or classes in turn, as "3,5" or "cat,dog"; a class of the
        name "random" is "name:random".

    Raises:
      UserError: no class has that name.
    """
    if text in ("", BALANCED):
        return balanced_labels(count, classes.count), BALANCED
    if text == RANDOM:
        return random_labels(count, classes.count, seed), RANDOM
    chosen = parse_labels(text, classes)
    if not chosen:  # commas alone
        return balanced_labels(count, classes.count), BALANCED
    how = f"{', '.join(map(str, chosen))} in turn"
    return np.resize(np.array(chosen, np.int32), count), how
