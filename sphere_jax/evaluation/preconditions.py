"""What every metric requires of its arrays; ValueErrors in one sentence say what is wrong."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Integer, Shaped

Images = Shaped[Any, "_n _h _w _c"]  # uint8, C of 1 or 3; may be read where they are indexed


def require_images(images: Any, name: str, at_least: int = 1) -> Images:
    """`images` if they are uint8 (N, H, W, 1 or 3) with N >= `at_least`.

    They may be read where they are indexed (`data.lazy_pictures.Pictures`), and stay so.

    Raises:
      ValueError: otherwise.
    """
    images = images if hasattr(images, "dtype") else np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} must be uint8 images (N, H, W, 1 or 3), not {images.dtype} of shape "
            f"{images.shape}."
        )
    if len(images) < at_least:
        raise ValueError(f"{name} must hold at least {at_least} images, not {len(images)}.")
    return images


def require_labels(
    labels: Any, images: Images, num_classes: int, name: str
) -> Integer[np.ndarray, " n"]:
    """`labels` if there is one integer in 0..num_classes-1 for each image.

    Raises:
      ValueError: otherwise.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name} must be {len(images)} integer labels, not {labels.dtype} of shape "
            f"{labels.shape}."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"{name} must lie in 0..{num_classes - 1}, not {labels.min()}..{labels.max()}."
        )
    return labels


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
