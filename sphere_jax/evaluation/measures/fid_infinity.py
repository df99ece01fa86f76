"""FID of infinitely many samples, extrapolated (Chong and Forsyth 2020, arXiv 1911.07023)."""

import dataclasses

import numpy as np
from jaxtyping import Float

from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import Progress
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.measures.base import Labels, Measure
from sphere_jax.evaluation.measures.fid import INCEPTION
from sphere_jax.evaluation.statistics import Statistics, Stream
from sphere_jax.evaluation.tiles import cuts


@dataclasses.dataclass(frozen=True)
class FidInfinity(Measure):
    """The bias of FID is about c / N: a line through FIDs of several N, at 1 / N = 0.

    points: how many N, evenly from `least` to all samples, as published. seed: of which samples.
    The bias that the number of reference images makes stays.
    """

    title = "FID at infinity"
    better = "lower"
    reference_needs = "statistics"

    network: str = INCEPTION
    points: int = 15
    least: int = 5000
    seed: int = 0

    def __post_init__(self):
        if self.points < 2 or self.least < 2:
            raise ValueError("points and least must be at least 2.")

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: Statistics | None = None,
        labels: Labels | None = None,
    ) -> dict:
        """fid_infinity; fid_infinity_residual is the root mean square of points about the line."""
        if len(samples) <= self.least:
            raise UserError(
                f"{self.title} needs more than {self.least:,} samples, not {len(samples):,}; give "
                "more, or set least=, to less than half of them."
            )
        counts = np.linspace(self.least, len(samples), self.points).astype(int).tolist()
        rng, found = np.random.default_rng(self.seed), []
        progress = Progress(self.title, len(counts))
        for done, count in enumerate(counts):
            progress.done(done)
            chosen, stream = np.sort(rng.permutation(len(samples))[:count]), Stream()
            for part in cuts(count):
                stream.add(samples[chosen[part]])
            found.append(frechet_distance_of(stream.statistics(), reference))
        part = 1 / np.array(counts)
        slope, constant = np.polyfit(part, found, 1)
        residual = np.sqrt(np.mean(np.square(constant + slope * part - found)))
        return {"fid_infinity": constant, "fid_infinity_residual": residual}


MEASURE = FidInfinity()
