"""Are samples copies of training images? The distance to the nearest one, against held-out images.

Held-out images are as far from the training split as new images of the same kind should be. A
generator that copies is nearer.
"""

import numpy as np

from sphere_jax.evaluation.checks import check_images
from sphere_jax.progress import Progress

CHUNK = 1024  # rows and columns of a distance matrix in memory at once


def nearest_training_image(images: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) to and index (N,) of the nearest training image.

    The distance is the root mean square over pixels and channels, in grey levels 0..255, and exact
    for the image found: a copy has distance 0.

    Args:
      images: uint8 (N, H, W, C). train: uint8 (T, H, W, C).

    Raises:
      ValueError: not uint8 images, or shapes differ.
    """
    images, train = check_images(images, "images"), check_images(train, "training images")
    if images.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"Images of shape {images.shape[1:]} have no distance to training images of shape "
            f"{train.shape[1:]}."
        )
    found, progress = [], Progress("nearest training images", len(images))
    for start in range(0, len(images), CHUNK):
        progress.done(start)
        found.append(_search(images[start : start + CHUNK], train))
    distances, indices = zip(*found, strict=True)
    return np.concatenate(distances), np.concatenate(indices)


def _search(images: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    queries = _centred(images)
    best, index = np.full(len(images), np.inf, np.float32), np.zeros(len(images), np.int64)
    for start in range(0, len(train), CHUNK):
        keys = _centred(train[start : start + CHUNK])
        # |q - k|^2 without its constant |q|^2; float32 is enough to choose.
        squared = (keys * keys).sum(1).reshape(1, -1) - 2 * queries @ keys.T
        nearest = squared.argmin(1)
        value = squared[np.arange(len(images)), nearest]
        closer = value < best
        best, index = np.where(closer, value, best), np.where(closer, start + nearest, index)
    pairs = zip(images, train[index], strict=True)
    squares = [np.square(a.astype(np.float64) - b.astype(np.float64)).mean() for a, b in pairs]
    return np.sqrt(squares), index


def _centred(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) - 127.5


def memorisation(distances: np.ndarray, heldout_distances: np.ndarray) -> dict[str, float]:
    """Sample distances to the training split, set against those of held-out images.

    Returns:
      nearest_train_distance_ratio: median over median; well below 1 means copying (or blur).
      nearest_train_too_close: part of the samples closer than the closest 1% of held-out images;
        0.01 is expected.

    Raises:
      ValueError: either is empty.
    """
    if len(distances) == 0 or len(heldout_distances) == 0:
        raise ValueError("Memorisation needs at least one sample and one held-out image.")
    typical = np.median(heldout_distances)
    if typical == 0:
        raise ValueError("More than half of the held-out images are copies of training images.")
    threshold = np.percentile(heldout_distances, 1)
    return {
        "nearest_train_distance_ratio": float(np.median(distances) / typical),
        "nearest_train_too_close": float(np.mean(distances < threshold)),
    }
