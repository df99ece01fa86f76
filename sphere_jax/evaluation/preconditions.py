"""What metrics take: images (`data.array_checks.require_images` checks them) and features."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

Images = Shaped[Any, "_n _h _w _c"]  # uint8, C of 1 or 3; may be read where they are indexed


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
