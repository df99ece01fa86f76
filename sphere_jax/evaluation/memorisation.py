"""Are samples copies of training images? The distance to the nearest one, against held-out images.

Held-out images are as far from the training split as new images of the same kind should be. A
generator that copies is nearer.
"""

import math

import numpy as np
from jaxtyping import Float, Integer

from sphere_jax.common.progress import Progress
from sphere_jax.data.array_checks import require_images
from sphere_jax.evaluation.preconditions import Images

CHUNK = 1024  # rows and columns of a distance matrix in memory at once
MOST = 1e14  # multiply-adds of a search: about an hour of a CPU core


def nearest_training_image(
    images: Images, train: Images
) -> tuple[Float[np.ndarray, " n"], Integer[np.ndarray, " n"]]:
    """Distance to and index of the nearest training image.

    The distance is the root mean square over pixels and channels, in grey levels 0..255, and exact
    for the image found: a copy has distance 0.

    Args:
      images: uint8 (N, H, W, C). train: uint8 (T, H, W, C).

    Raises:
      ValueError: not uint8 images, or shapes differ.
    """
    images, train = require_images(images, "images"), require_images(train, "training images")
    if images.shape[1:] != train.shape[1:]:
        raise ValueError(
            f"Images of shape {images.shape[1:]} have no distance to training images of shape "
            f"{train.shape[1:]}."
        )
    images = np.asarray(images[:])  # in memory, once
    best = np.full(len(images), np.inf, np.float32)
    index, progress = np.zeros(len(images), np.int64), Progress("compared with", len(train))
    for first in range(0, len(train), CHUNK):  # outside: these may be read and decoded here
        progress.done(first)
        keys = _centred(train[first : first + CHUNK])
        squares = (keys * keys).sum(1)
        for start in range(0, len(images), CHUNK):
            rows = slice(start, start + CHUNK)
            # |q - k|^2 without its constant |q|^2; float32 is enough to choose.
            squared = squares - 2 * _centred(images[rows]) @ keys.T
            nearest = squared.argmin(1)
            value = squared[np.arange(len(nearest)), nearest]
            closer = value < best[rows]
            best[rows] = np.where(closer, value, best[rows])
            index[rows] = np.where(closer, first + nearest, index[rows])
    return _apart(images, train, index), index


def searchable(count: int, train: Images) -> bool:
    """Whether the nearest of `train` to so many images is found within about an hour, not days."""
    return count * math.prod(train.shape) <= MOST


def _apart(images: np.ndarray, train: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Root mean square (N,) of each image less the training image at its index."""
    found = []
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        pairs = zip(images[rows], train[index[rows]], strict=True)
        found += [np.square(a.astype(np.float64) - b.astype(np.float64)).mean() for a, b in pairs]
    return np.sqrt(found)


def _centred(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) - 127.5


def memorisation(
    distances: Float[np.ndarray, " n"], heldout_distances: Float[np.ndarray, " m"]
) -> dict[str, float]:
    """Sample distances to the training split, compared with those of held-out images.

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
