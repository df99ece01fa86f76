"""Images in batches of one shape, so that one compiled program serves all."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Shaped

from sphere_jax.common.progress import Progress


def padded_batches(
    images: Shaped[np.ndarray, "n ..."], batch_size: int, what: str = ""
) -> Iterator[tuple[Shaped[np.ndarray, "b ..."], Bool[np.ndarray, " b"]]]:
    """Batches of `batch_size` rows, the last filled up with zeros, and the mask of real rows.

    `what` is the name under which progress is logged, if any.
    """
    progress = Progress(what, len(images)) if what else None
    for start in range(0, len(images), batch_size):
        if progress:
            progress.done(start)
        batch = images[start : start + batch_size]
        missing = batch_size - len(batch)
        fill = np.zeros((missing, *images.shape[1:]), images.dtype)
        yield np.concatenate([batch, fill]), np.arange(batch_size) < len(batch)
