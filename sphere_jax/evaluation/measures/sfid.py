"""sFID: the Fréchet distance of spatial features (Nash et al. 2021, arXiv 2103.03841)."""

import dataclasses

from sphere_jax.evaluation.measures.fid import Fid


@dataclasses.dataclass(frozen=True)
class SpatialFid(Fid):
    """`FrechetDistance` of 17 x 17 places and 7 channels in the middle of Inception, as ADM's
    evaluator has it: 2,023 numbers in TensorFlow's order."""

    title = "sFID"
    output = "spatial"
    key = "sfid"


MEASURE = SpatialFid()
