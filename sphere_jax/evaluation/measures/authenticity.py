"""Are samples copies of the reference? Nearest neighbours in features (Alaa et al. 2022, arXiv
2102.08921), the reference being the images that the generator was trained on."""

import dataclasses

import numpy as np
from jaxtyping import Float

from sphere_jax.evaluation import neighbours
from sphere_jax.evaluation.measures.base import Labels, Measure
from sphere_jax.evaluation.measures.fid import INCEPTION
from sphere_jax.evaluation.memorisation import memorisation


@dataclasses.dataclass(frozen=True)
class Authenticity(Measure):
    """authenticity: part of the samples that are farther from their nearest reference image than
    that one is from the rest of the reference; copies are nearer. dgm-eval prints it in percent.

    nearest_distance_ratio and nearest_too_close: `memorisation`, with the distances within the
    reference in place of held-out images.
    """

    title = "Authenticity"
    better = "higher"

    network: str = INCEPTION

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: Float[np.ndarray, "m f"] | None = None,
        labels: Labels | None = None,
    ) -> dict:
        found = neighbours.nearest_reference(samples, reference)
        near = memorisation(found.distances, found.within_reference)
        return {
            "authenticity": np.mean(found.within_reference[found.indices] < found.distances),
            "nearest_distance_ratio": near["nearest_train_distance_ratio"],
            "nearest_too_close": near["nearest_train_too_close"],
        }


MEASURE = Authenticity()
