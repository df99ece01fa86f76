"""What metrics take: images (`data.array_checks.require_images` checks them) and features."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped

Images = Shaped[Any, "_n _h _w _c"]  # uint8, C of 1 or 3; may be read where they are indexed

PART = 1024  # rows that are checked at once


def require_features(features: Any, name: str, at_least: int = 1) -> Float64[np.ndarray, "n f"]:
    """`features` as float64 (N, F) if all are finite and N >= `at_least`.

    Raises:
      ValueError: otherwise.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"{name} must have shape (N, F), not {features.shape}.")
    if len(features) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} rows, not {len(features)}.")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} hold NaN or infinity.")
    return features


def require_rows(rows: Any, name: str, at_least: int = 1) -> Float[np.ndarray, "n f"]:
    """`require_features` without a copy of float32 and float64 rows, which may be many.

    Raises:
      ValueError: as `require_features`.
    """
    rows = np.asarray(rows)
    if rows.dtype not in (np.float32, np.float64):
        return require_features(rows, name, at_least)
    require_features(rows[:0], name, at_least=0)
    if len(rows) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} rows, not {len(rows)}.")
    if not all(
        np.isfinite(rows[start : start + 1024]).all() for start in range(0, len(rows), 1024)
    ):
        raise ValueError(f"{name} hold NaN or infinity.")
    return rows
