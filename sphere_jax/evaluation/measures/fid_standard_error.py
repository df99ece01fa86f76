"""How far FID moves between draws of as many samples: its standard error, without resampling."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float64

from sphere_jax.evaluation.measures.base import Labels, Measure
from sphere_jax.evaluation.measures.fid import INCEPTION
from sphere_jax.evaluation.preconditions import require_rows
from sphere_jax.evaluation.statistics import Statistics, Stream
from sphere_jax.evaluation.tiles import cuts


@dataclasses.dataclass(frozen=True)
class FidStandardError(Measure):
    """The deviation of what single samples contribute to the distance, over sqrt(N).

    It is what a bootstrap of the samples estimates, at the price of one distance. It holds for the
    draw of the samples alone: neither the bias of few samples nor the reference is in it.
    """

    title = "Standard error of FID"
    better = "lower"
    reference_needs = "statistics"

    network: str = INCEPTION

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: Statistics | None = None,
        labels: Labels | None = None,
    ) -> dict:
        samples, stream = require_rows(samples, "sample features", at_least=2), Stream()
        for part in cuts(len(samples)):
            stream.add(samples[part])
        moments = stream.statistics()
        shift, towards = moments.mu - reference.mu, _map(moments.sigma, reference.sigma)
        parts = []
        for part in cuts(len(samples)):
            x = samples[part] - moments.mu.reshape(1, -1)
            squares = np.einsum("nf,nf->n", x, x) - np.square(x @ towards).sum(1)
            parts.append(2 * (x @ shift) + squares)
        influence = np.concatenate(parts)
        return {"fid_standard_error": influence.std(ddof=1) / np.sqrt(len(samples))}


def _map(
    sigma: Float64[np.ndarray, "f f"], reference: Float64[np.ndarray, "f f"]
) -> Float64[np.ndarray, "f r"]:
    """W with W W^T = T, the optimal transport of one Gaussian to the other on the span of `sigma`:
    I - T is the gradient of the distance with respect to `sigma`."""
    values, vectors = np.linalg.eigh(sigma)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    roots, vectors = np.sqrt(values[kept]).reshape(1, -1), vectors[:, kept]
    inner = (vectors * roots).T @ reference @ (vectors * roots)
    squares, axes = np.linalg.eigh(inner)
    return (vectors / roots) @ (axes * np.maximum(squares, 0.0).reshape(1, -1) ** 0.25)


MEASURE = FidStandardError()
