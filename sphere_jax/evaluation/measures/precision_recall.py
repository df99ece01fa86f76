"""Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991)."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation import neighbours
from sphere_jax.evaluation.measures.base import Labels, Measure
from sphere_jax.evaluation.measures.fid import INCEPTION


@dataclasses.dataclass(frozen=True)
class NearestNeighbours(Measure):
    """What counts points in balls of the other set, each to its `neighbours`-th nearest.

    counted: values that are a part of one side's images, and which side that is. Their standard
      errors say how much they would differ for other images of that side; those of the other side
      are taken as given.
    """

    better = "higher"
    numbers = staticmethod(neighbours.precision_recall)
    counted: ClassVar[dict[str, str]] = {"precision": "samples", "recall": "reference"}

    network: str = INCEPTION
    neighbours: int = 3

    def __post_init__(self):
        if self.neighbours < 1:
            raise ValueError("neighbours must be at least 1.")

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: Float[np.ndarray, "m f"] | None = None,
        labels: Labels | None = None,
    ) -> dict:
        fewest = min(len(samples), len(reference))
        if fewest <= self.neighbours:
            raise UserError(
                f"{self.title} with neighbours={self.neighbours} needs more images on each side "
                f"than that, not {fewest}."
            )
        found = self.numbers(reference, samples, self.neighbours)
        counts = {"samples": len(samples), "reference": len(reference)}
        errors = {
            f"{name}_standard_error": (found[name] * (1 - found[name]) / counts[side]) ** 0.5
            for name, side in self.counted.items()
        }
        return found | errors

    def remarks(self, samples: int | None, reference: int | None, length: int) -> list[str]:
        if samples is None or reference is None or samples == reference:
            return []
        return [
            f"{samples:,} samples against {reference:,} reference images: {self.title.lower()} "
            "depend on both numbers; published ones are mostly of sets of equal size."
        ]


@dataclasses.dataclass(frozen=True)
class PrecisionRecall(NearestNeighbours):
    """precision: part of the samples within the reference; recall: part of the reference within the
    samples.

    Published numbers are of k = 3 with 50,000 on each side (the paper's), or with ADM's 10,000 and
    50,000; torch-fidelity's default is 3, and some use k = 5 with 10,000.
    """

    title = "Precision and recall"


MEASURE = PrecisionRecall()
