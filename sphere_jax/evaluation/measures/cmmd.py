"""CMMD: maximum mean discrepancy of CLIP embeddings (Jayasumana et al. 2024, arXiv 2401.09603)."""

import dataclasses

import numpy as np
from jaxtyping import Float

from sphere_jax.evaluation.kernels import gaussian_sums
from sphere_jax.evaluation.measures.base import Labels, Measure


@dataclasses.dataclass(frozen=True)
class Cmmd(Measure):
    """1,000 MMD^2 with the kernel exp(-|a - b|^2 / (2 sigma^2)) of embeddings of unit length.

    As published it is the biased estimate: each image is paired with itself too, which adds about
    1,000 (1 - mean kernel) (1/N + 1/M).
    """

    title = "CMMD"
    better = "lower"

    network: str = "clip_vitl14_336"
    sigma: float = 10.0
    scale: float = 1000.0

    def __post_init__(self):
        if self.sigma <= 0 or self.scale <= 0:
            raise ValueError("sigma and scale must be positive.")

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: Float[np.ndarray, "m f"] | None = None,
        labels: Labels | None = None,
    ) -> dict:
        sums = gaussian_sums(samples, reference, self.sigma)
        return {
            "cmmd": self.scale * sums.biased(diagonal=0.0),
            "cmmd_standard_error": self.scale * sums.standard_error(),
        }


MEASURE = Cmmd()
