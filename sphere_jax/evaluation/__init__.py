"""Scores of images against others: sides, feature networks, streaming statistics, measures, and
their protocol. `evaluate` needs no config and no run; `score.py` scores runs, and `page.py` and
`figures.py` show that.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphere_jax.evaluation.api import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    """`evaluate`, imported when it is asked for: methods use single modules of this package, and
    run where there is neither Pillow nor grain."""
    if name in __all__:
        from sphere_jax.evaluation import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
