"""Density and coverage (Naeem et al. 2020, arXiv 2002.09797)."""

import dataclasses

from sphere_jax.evaluation import neighbours
from sphere_jax.evaluation.measures.precision_recall import NearestNeighbours


@dataclasses.dataclass(frozen=True)
class DensityCoverage(NearestNeighbours):
    """density: balls of the reference about a sample, over k; 1 is expected, more is possible.
    coverage: part of those balls that hold a sample. The paper's k is 5."""

    title = "Density and coverage"
    numbers = staticmethod(neighbours.density_coverage)
    counted = {"coverage": "reference"}

    neighbours: int = 5


MEASURE = DensityCoverage()
