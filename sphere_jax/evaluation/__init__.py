"""Scores of images against others: sides, feature networks, streaming statistics, measures, and
their protocol. `evaluate` needs no config and no run; `score.py` scores runs, and `page.py` and
`figures.py` show that.
"""

from sphere_jax.evaluation.api import evaluate

__all__ = ["evaluate"]
