"""The Fréchet distance of two Gaussians. It takes moments, never networks."""

import numpy as np
from jaxtyping import Shaped

from sphere_jax.evaluation.statistics import Statistics


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
