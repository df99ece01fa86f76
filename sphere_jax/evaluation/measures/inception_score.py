"""Inception Score: how sure the classes of samples are, and how varied (Salimans et al. 2016,
arXiv 1606.03498)."""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.measures.base import Labels, Measure
from sphere_jax.evaluation.measures.fid import INCEPTION
from sphere_jax.evaluation.tiles import cuts


@dataclasses.dataclass(frozen=True)
class InceptionScore(Measure):
    """exp(mean KL(p(class | image) || p(class))), of each of `splits` parts; their mean and
    standard deviation. No reference.

    Classes are the 1,008 of Inception, from its logits without their bias, as in the original code.
    shuffle: mixes samples before they are split, as torch-fidelity does, with `seed`; ADM's
    evaluator does not, and then files sorted by class have parts of few classes. It depends on the
    order of samples, but with splits=1.
    """

    title = "Inception Score"
    better = "higher"
    output = "logits"
    reference_needs = None

    network: str = INCEPTION
    splits: int = 10
    shuffle: bool = True
    seed: int = 2020

    def __post_init__(self):
        if self.splits < 1:
            raise ValueError("splits must be at least 1.")

    def compute(
        self,
        samples: Float[np.ndarray, "n f"],
        reference: None = None,
        labels: Labels | None = None,
    ) -> dict:
        """inception_score, and inception_score_std over the parts."""
        if len(samples) < self.splits:
            raise UserError(
                f"{self.title} needs at least {self.splits} samples, not {len(samples)}; set "
                "splits= to fewer."
            )
        order = np.arange(len(samples))
        if self.shuffle:
            order = np.random.RandomState(self.seed).permutation(len(samples))
        ends = np.arange(self.splits + 1) * len(samples) // self.splits
        found = [_score(samples, order[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
        return {"inception_score": np.mean(found), "inception_score_std": np.std(found)}

    def remarks(self, samples: int | None, reference: int | None, length: int) -> list[str]:
        if samples is None or samples >= 1000 * self.splits:
            return []
        return [
            f"{samples // self.splits:,} samples in each of {self.splits} parts: the Inception "
            "Score is biased downwards where a part has few samples for each class."
        ]


def _score(logits: np.ndarray, chosen: np.ndarray) -> float:
    """exp of the mean entropy of all less the mean of each one's, of some rows."""
    total, own = np.zeros(logits.shape[1]), 0.0
    for part in cuts(len(chosen)):
        log_p = log_softmax(logits[chosen[part]].astype(np.float64), axis=1)
        p = np.exp(log_p)
        total += p.sum(0)
        own += float((p * log_p).sum())
    mean = total / len(chosen)
    seen = mean[mean > 0]
    return float(np.exp(own / len(chosen) - (seen * np.log(seen)).sum()))


MEASURE = InceptionScore()
