"""Fréchet distance of two sets of features, in any network: that of two Gaussians with their means
and covariances (Heusel et al. 2017, arXiv 1706.08500)."""

import dataclasses

from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.measures.base import Labels, Measure
from sphere_jax.evaluation.statistics import Statistics

FEW = 2048  # images, below which the bias of a Fréchet distance is as large as what it measures


@dataclasses.dataclass(frozen=True)
class FrechetDistance(Measure):
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^{1/2}), lower is better, 0 for equal moments."""

    title = "Fréchet distance"
    better = "lower"
    needs = reference_needs = "statistics"
    key = "frechet_distance"

    network: str = "inception_fid"

    @property
    def suffix(self) -> str:
        """Always the network: what the distance is called says nothing about it."""
        return f"_{self.network.rpartition('.')[2]}"

    def compute(
        self, samples: Statistics, reference: Statistics | None = None, labels: Labels | None = None
    ) -> dict:
        return {self.key: frechet_distance_of(samples, reference)}

    def remarks(self, samples: int | None, reference: int | None, length: int) -> list[str]:
        said = []
        for side, count in (("samples", samples), ("reference images", reference)):
            if count is None:
                continue
            if count <= length:
                said.append(
                    f"{count:,} {side} for features of length {length:,}: their covariance is "
                    "singular, and the distance too large."
                )
            elif count < FEW:
                said.append(
                    f"Only {count:,} {side}: the distance is biased upwards below {FEW:,}; compare "
                    "it with distances of as many images alone."
                )
        return said


MEASURE = FrechetDistance()
