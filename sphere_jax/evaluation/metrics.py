"""Distances between sets of features. They take arrays, never networks."""

import numpy as np
from jaxtyping import Shaped
from sklearn.metrics.pairwise import euclidean_distances

from sphere_jax.evaluation.preconditions import require_features
from sphere_jax.evaluation.statistics import Statistics

CHUNK = 1024  # rows of a distance matrix in memory at once


def frechet_distance(
    mu1: Shaped[np.ndarray, "..."],
    sigma1: Shaped[np.ndarray, "..."],
    mu2: Shaped[np.ndarray, "..."],
    sigma2: Shaped[np.ndarray, "..."],
) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians:

    |mu1 - mu2|^2 + tr sigma1 + tr sigma2 - 2 tr (sigma1 sigma2)^{1/2}.

    With sigma = A A^T the last trace is the sum of the singular values of A1^T A2, so that two
    symmetric eigenvalue problems and one singular value problem replace a matrix square root, and
    covariances may be singular. It is FID only on the features of the original Inception network.

    Args:
      mu1, mu2: means (F,). sigma1, sigma2: covariances (F, F), symmetric.

    Raises:
      ValueError: shapes differ, a value is not finite, or a covariance is not symmetric.
    """
    mu1, mu2, sigma1, sigma2 = (np.asarray(a, np.float64) for a in (mu1, mu2, sigma1, sigma2))
    if mu1.ndim != 1 or mu1.shape != mu2.shape:
        raise ValueError(f"The means must both have shape (F,), not {mu1.shape} and {mu2.shape}.")
    for sigma in (sigma1, sigma2):
        if sigma.shape != (mu1.size, mu1.size):
            raise ValueError(f"A covariance has shape {sigma.shape}, not {(mu1.size, mu1.size)}.")
    if not all(np.isfinite(a).all() for a in (mu1, mu2, sigma1, sigma2)):
        raise ValueError("The means and covariances must not hold NaN or infinity.")
    for sigma in (sigma1, sigma2):
        if not np.allclose(sigma, sigma.T, rtol=1e-6, atol=1e-6 * np.abs(sigma).max()):
            raise ValueError("A covariance is not symmetric.")
    overlap = np.linalg.svd(_root(sigma1).T @ _root(sigma2), compute_uv=False).sum()
    shift = mu1 - mu2
    distance = shift @ shift + np.trace(sigma1) + np.trace(sigma2) - 2 * overlap
    return float(max(distance, 0.0))  # rounding may leave -1e-15


def frechet_distance_of(first: Statistics, second: Statistics) -> float:
    """`frechet_distance` of two streams' statistics."""
    return frechet_distance(first.mu, first.sigma, second.mu, second.sigma)


def _root(sigma: np.ndarray) -> np.ndarray:
    """A with A A^T = sigma. Eigenvalues below rounding are none: their roots would not be small."""
    values, vectors = np.linalg.eigh(sigma)
    noise = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors * np.sqrt(np.where(values > noise, values, 0.0)).reshape(1, -1)


def precision_recall(
    real: Shaped[np.ndarray, "..."], generated: Shaped[np.ndarray, "..."], k: int = 3
) -> dict[str, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    A set's manifold is the union of balls about its points, each reaching to the point's k-th
    nearest neighbour in the same set. Precision is the part of `generated` inside the manifold of
    `real`; recall the part of `real` inside the manifold of `generated`. Use sets of equal size:
    a larger set has smaller balls but more of them.

    Args:
      real: features (N, F). generated: features (M, F). k: neighbours, not counting the point.

    Returns:
      {"precision": in 0..1, "recall": in 0..1}

    Raises:
      ValueError: fewer than k + 1 rows, a value that is not finite, or k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    real = require_features(real, "real features", at_least=k + 1)
    generated = require_features(generated, "generated features", at_least=k + 1)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"real and generated features have lengths {real.shape[1]} and {generated.shape[1]}."
        )
    return {
        "precision": _inside(generated, real, _radii(real, k)),
        "recall": _inside(real, generated, _radii(generated, k)),
    }


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """(N,) squared distance of each point to its k-th nearest neighbour, itself left out."""
    chunks = []
    for start in range(0, len(points), CHUNK):
        rows = points[start : start + CHUNK]
        squared = _squared_distances(rows, points)
        squared[np.arange(len(rows)), start + np.arange(len(rows))] = np.inf
        chunks.append(np.partition(squared, k - 1, axis=1)[:, k - 1])
    return np.concatenate(chunks)


def _inside(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Part of `points` within at least one ball (squared radii) about `centres`."""
    # Both sides of the comparison are rounded: a point on the rim counts as inside.
    reach = radii + 1e-9 * (1 + radii)
    inside = 0
    for start in range(0, len(points), CHUNK):
        squared = _squared_distances(points[start : start + CHUNK], centres)
        inside += np.count_nonzero((squared <= reach.reshape(1, -1)).any(axis=1))
    return float(inside / len(points))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, F), (B, F) -> (A, B), about a common origin so that few digits cancel."""
    origin = b.mean(0, keepdims=True)
    return euclidean_distances(a - origin, b - origin, squared=True)
