"""How evenly latents cover the global sphere, and how much of them survives noise. numpy only.

A generator that decodes uniform points of the sphere draws well only where encoded images lie, so
the law of encoded held-out images should be the uniform one (arXiv 2602.15030;
docs/systems/sphere_encoder.md#purpose).
"""

import numpy as np
from jaxtyping import Float, Float32, Integer

DIRECTIONS = 256
PAIRS = 20_000
ANGLES = (0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 89)  # degrees, of the robustness curve


def sliced_wasserstein(
    points: Float[np.ndarray, "n l"], others: Float[np.ndarray, "n l"], seed: int = 0
) -> float:
    """Root mean square, over random directions, of the 2-Wasserstein distance of projections.

    Args:
      points, others: (N, L); coordinates of RMS 1 have projections of variance 1.
    """
    directions = np.random.default_rng(seed).standard_normal((points.shape[1], DIRECTIONS))
    directions = (directions / np.linalg.norm(directions, axis=0)[None]).astype(np.float32)
    a, b = (np.sort(x.astype(np.float32) @ directions, axis=0) for x in (points, others))
    return float(np.sqrt(np.mean((a - b) ** 2)))


def uniform_points(count: int, length: int, seed: int) -> Float32[np.ndarray, "{count} {length}"]:
    """(count, length) points of the sphere of radius sqrt(length)."""
    points = np.random.default_rng(seed).standard_normal((count, length)).astype(np.float32)
    return points / np.sqrt(np.mean(points**2, axis=1, keepdims=True))


def coverage(
    points: Float[np.ndarray, "n ..."], labels: Integer[np.ndarray, " n"]
) -> dict[str, float]:
    """What distinguishes encoded images (N, ...) on the global sphere from uniform points.

    Returns:
      sliced_wasserstein: to as many uniform points; ..._uniform: of two sets of uniform points, the
        least that this number of points can show.
      cosine_within_mean, ..._std and cosine_across_...: of pairs of one class and of two; uniform
        pairs have mean 0 and standard deviation cosine_uniform_std = 1 / sqrt(L).
    """
    points = points.reshape(len(points), -1)
    count, length = points.shape
    uniform = uniform_points(count, length, seed=1)
    rng = np.random.default_rng(0)
    first, second = rng.integers(count, size=(2, PAIRS))
    apart = first != second
    first, second = first[apart], second[apart]
    units = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    cosines = np.einsum("nl,nl->n", units[first], units[second])
    within = labels[first] == labels[second]
    metrics = {
        "sliced_wasserstein": sliced_wasserstein(points, uniform),
        "sliced_wasserstein_uniform": sliced_wasserstein(
            uniform_points(count, length, seed=2), uniform
        ),
        "cosine_uniform_std": float(1 / np.sqrt(length)),
    }
    for name, chosen in (("within", within), ("across", ~within)):
        if chosen.any():
            metrics[f"cosine_{name}_mean"] = float(cosines[chosen].mean())
            metrics[f"cosine_{name}_std"] = float(cosines[chosen].std())
    return metrics
