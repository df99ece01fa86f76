"""The Fréchet distance of two Gaussians. It takes moments, never networks."""

import numpy as np
import scipy.linalg
from jaxtyping import Shaped

from sphere_jax.evaluation.statistics import Statistics

ACCURACY = 1e-7  # relative, of the quick way


def frechet_distance(
    mu1: Shaped[np.ndarray, "..."],
    sigma1: Shaped[np.ndarray, "..."],
    mu2: Shaped[np.ndarray, "..."],
    sigma2: Shaped[np.ndarray, "..."],
) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians:

    |mu1 - mu2|^2 + tr sigma1 + tr sigma2 - 2 tr (sigma1 sigma2)^{1/2}.

    It is FID only on the features of the original Inception network. No matrix square root is
    taken: with sigma1 = L L^T, by Cholesky, the last trace is the sum of the roots of the
    eigenvalues of L^T sigma2 L, which is symmetric. Where rounding could change the distance by
    more than a part in 10^7, as with singular covariances or equal ones, `_overlap` takes singular
    values instead, which lose no digits.

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
        if np.abs(sigma - sigma.T).max() > 1e-6 * np.abs(sigma).max():
            raise ValueError("A covariance is not symmetric.")
    shift = mu1 - mu2
    apart = shift @ shift + np.trace(sigma1) + np.trace(sigma2)
    overlap, error = _quick_overlap(sigma1, sigma2)
    if not 2 * error <= ACCURACY * (apart - 2 * overlap):
        overlap = _overlap(sigma1, sigma2)
    return float(max(apart - 2 * overlap, 0.0))  # rounding may leave -1e-15


def frechet_distance_of(first: Statistics, second: Statistics) -> float:
    """`frechet_distance` of two streams' statistics."""
    return frechet_distance(first.mu, first.sigma, second.mu, second.sigma)


def _quick_overlap(sigma1: np.ndarray, sigma2: np.ndarray) -> tuple[float, float]:
    """tr (sigma1 sigma2)^{1/2} and a bound of its error; infinite where Cholesky finds no root.

    LAPACK's sygv takes eigenvalues of a product so, by Cholesky, in fewer operations than the
    products of matrices would need.
    """
    try:
        values = scipy.linalg.eigh(
            sigma2, sigma1, type=2, driver="gv", eigvals_only=True, check_finite=False
        )
    except np.linalg.LinAlgError:
        return 0.0, np.inf
    roots = np.sqrt(np.maximum(values, 0.0))
    noise = np.finfo(np.float64).eps * np.linalg.norm(sigma1) * np.linalg.norm(sigma2)
    return roots.sum(), (np.sqrt(np.maximum(values, 0.0) + noise) - roots).sum()


def _overlap(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """tr (sigma1 sigma2)^{1/2}: with sigma = A A^T, the sum of the singular values of A1^T A2."""
    return np.linalg.svd(_root(sigma1).T @ _root(sigma2), compute_uv=False).sum()


def _root(sigma: np.ndarray) -> np.ndarray:
    """A (F, rank) with A A^T = sigma. Eigenvalues below rounding are none: their roots would not be
    small."""
    values, vectors = np.linalg.eigh(sigma)
    noise = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    kept = values > noise
    return vectors[:, kept] * np.sqrt(values[kept]).reshape(1, -1)
