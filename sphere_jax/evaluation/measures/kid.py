"""KID: unbiased maximum mean discrepancy with a cubic kernel (Binkowski et al. 2018, arXiv
1801.01401)."""

import dataclasses

import numpy as np
from jaxtyping import Float

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.kernels import cubic_sums
from sphere_jax.evaluation.measures.base import Labels, Measure
from sphere_jax.evaluation.measures.fid import INCEPTION


@dataclasses.dataclass(frozen=True)
class Kid(Measure):
    """MMD^2 with the kernel (a.b / F + 1)^3 of features; it may be slightly below 0.

    subsets: 0 takes all pairs at once. 100 with subset_size 1,000 is what torch-fidelity, clean-fid
    and torchmetrics print: the mean over random subsets, which estimates the same number with more
    noise; `seed` is torch-fidelity's, and the subsets are.
    """

    title = "KID"
    better = "lower"

    network: str = INCEPTION
    subsets: int = 0
    subset_size: int = 1000
    seed: int = 2020

    def __post_init__(self):
        if self.subsets < 0 or self.subset_size < 2:
            raise ValueError("subsets must be at least 0, and subset_size at least 2.")

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: Float[np.ndarray, "m f"] | None = None,
        labels: Labels | None = None,
    ) -> dict:
        """kid, and of all pairs kid_standard_error, or kid_std, the deviation between subsets."""
        if self.subsets == 0:
            sums = cubic_sums(samples, reference)
            return {"kid": sums.unbiased(), "kid_standard_error": sums.standard_error()}
        fewest = min(len(samples), len(reference))
        if fewest < self.subset_size:
            raise UserError(
                f"KID in subsets of {self.subset_size} needs as many images on each side, not "
                f"{fewest}; set subset_size= to fewer, or subsets=0 for all pairs."
            )
        rng, found = np.random.RandomState(self.seed), []
        for _ in range(self.subsets):
            some = [x[rng.choice(len(x), self.subset_size, False)] for x in (samples, reference)]
            found.append(cubic_sums(*some).unbiased())
        return {"kid": np.mean(found), "kid_std": np.std(found)}


MEASURE = Kid()
