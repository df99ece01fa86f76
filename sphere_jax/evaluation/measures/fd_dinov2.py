"""FD-DINOv2: the Fréchet distance in the class token of plain DINOv2 ViT-L/14 (Stein et al. 2023,
arXiv 2306.04675), by the protocol of their dgm-eval."""

import dataclasses

from sphere_jax.evaluation.measures.base import Measure
from sphere_jax.evaluation.measures.frechet_distance import FrechetDistance


@dataclasses.dataclass(frozen=True)
class FdDinov2(FrechetDistance):
    """`FrechetDistance` of the 1,024 numbers of the class token."""

    title = "FD-DINOv2"
    key = "fd_dinov2"

    network: str = "dinov2_vitl14"
    suffix = Measure.suffix


MEASURE = FdDinov2()
