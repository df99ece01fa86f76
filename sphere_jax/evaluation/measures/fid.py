"""FID: the Fréchet distance in the features of Inception-v3 before its classifier (Heusel et al.
2017, arXiv 1706.08500)."""

import dataclasses

from sphere_jax.evaluation.measures.base import Measure
from sphere_jax.evaluation.measures.frechet_distance import FrechetDistance

# One for all measures that are published on Inception, so that one pass serves them. ADM's and
# torch-fidelity's own numbers resize as TensorFlow did: network=inception_tensorflow.
INCEPTION = "inception_fid"


@dataclasses.dataclass(frozen=True)
class Fid(FrechetDistance):
    """`FrechetDistance` of the 2,048 pooled features."""

    title = "FID"
    key = "fid"

    network: str = INCEPTION
    suffix = Measure.suffix


MEASURE = Fid()
