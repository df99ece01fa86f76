"""Do samples show the class that they were drawn for? By an ImageNet classifier."""

import dataclasses

import numpy as np
from jaxtyping import Float

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.measures.base import Labels, Measure


@dataclasses.dataclass(frozen=True)
class ClassAgreement(Measure):
    """Part of the samples whose class is the most likely one (top1), or among five (top5).

    Labels are of the classifier's classes: 0..999 in the order of ImageNet's synsets.
    """

    title = "Class agreement"
    better = "higher"
    output = "logits"
    reference_needs = None
    uses_labels = True
    at_least = 1

    network: str = "convnextv2_base"

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: None = None,
        labels: Labels | None = None,
    ) -> dict:
        if labels is None:
            raise UserError(f"{self.title} needs the classes that samples were drawn for.")
        if labels.min() < 0 or labels.max() >= samples.shape[1]:
            raise UserError(
                f"{self.title} by {self.network} knows the classes 0..{samples.shape[1] - 1}, not "
                f"{labels.min()}..{labels.max()}."
            )
        own = np.take_along_axis(samples, labels.reshape(-1, 1), axis=1)
        likelier = np.count_nonzero(samples > own, axis=1)
        return {
            "class_agreement_top1": np.mean(likelier < 1),
            "class_agreement_top5": np.mean(likelier < 5),
        }


MEASURE = ClassAgreement()
