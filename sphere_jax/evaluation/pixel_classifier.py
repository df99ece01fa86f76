"""Class agreement: does a sample show the class that it was drawn for?

A support vector machine with a Gaussian kernel on raw pixels of the training split decides. It
shares no weights with a generator or with the feature network. Its own accuracy on held-out images
is the upper bound of what an agreement can mean.

scikit-learn is imported where it is used: that takes a third of the imports of a run, which may end
long before it is scored, or not be scored at all.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Integer, Shaped

from sphere_jax.common.progress import Progress
from sphere_jax.data.array_checks import require_images, require_labels
from sphere_jax.evaluation.preconditions import Images

if TYPE_CHECKING:
    from sklearn.svm import SVC

LARGEST_SET = 5_000  # the kernel matrix is 200 MB then
PENALTY = 10.0
BATCH = 1024  # images classified at once


@dataclasses.dataclass(frozen=True, eq=False)
class PixelClassifier:
    """A fitted support vector machine, and the pixels and kernel width it was fitted with."""

    machine: "SVC"
    pixels: Float64[np.ndarray, "n pixels"]
    gamma: float
    image_shape: tuple[int, int, int]
    num_classes: int

    name = "rbf_svm_on_pixels"

    def predict(self, images: Images) -> Integer[np.ndarray, " n"]:
        """The classes of uint8 images.

        Raises:
          ValueError: the images are not uint8 of this classifier's shape.
        """
        from sklearn.metrics.pairwise import rbf_kernel

        images = require_images(images, "images")
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"The pixel classifier takes images of shape {self.image_shape}, not "
                f"{images.shape[1:]}."
            )
        found, progress = [], Progress("classified", len(images))
        for start in range(0, len(images), BATCH):  # pixels and kernel are float64
            progress.done(start)
            some = _pixels(np.asarray(images[start : start + BATCH]))
            found.append(self.machine.predict(rbf_kernel(some, self.pixels, self.gamma)))
        return np.concatenate(found)


def train_pixel_classifier(
    images: Images, labels: Shaped[np.ndarray, "..."], num_classes: int, *, seed: int = 0
) -> PixelClassifier:
    """Fits it to the training split, or to 5,000 images of a larger one, drawn by `seed`.

    Args:
      labels: (N,) in 0..num_classes-1.

    Raises:
      ValueError: wrong images or labels, or fewer than two classes among them.
    """
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.svm import SVC

    images = require_images(images, "The pixel classifier's images", at_least=2)
    labels = require_labels(labels, len(images), "The pixel classifier's labels", num_classes)
    if len(images) > LARGEST_SET:
        rows = np.random.default_rng(seed).choice(len(images), LARGEST_SET, replace=False)
        images, labels = images[rows], labels[rows]
    if len(np.unique(labels)) < 2:
        raise ValueError("The pixel classifier needs images of at least 2 classes.")
    pixels = _pixels(np.asarray(images))
    variance = pixels.var()
    if variance == 0:
        raise ValueError("The pixel classifier's images are all of one flat colour.")
    gamma = 1.0 / (pixels.shape[1] * variance)
    # As one matrix product: ten times faster than SVC's own kernel.
    machine = SVC(C=PENALTY, kernel="precomputed").fit(rbf_kernel(pixels, gamma=gamma), labels)
    return PixelClassifier(machine, pixels, gamma, images.shape[1:], num_classes)


def class_agreement(
    classifier: PixelClassifier, images: Images, labels: Shaped[np.ndarray, "..."]
) -> tuple[float, list[float | None]]:
    """Part of the images that are classified as their label: overall, and class by class.

    On held-out images with their true labels this is the classifier's accuracy. A class without
    images has None.

    Raises:
      ValueError: wrong images or labels.
    """
    images = require_images(images, "images")
    labels = require_labels(labels, len(images), "labels", classifier.num_classes)
    agrees = classifier.predict(images) == labels
    classes = [agrees[labels == c] for c in range(classifier.num_classes)]
    return float(agrees.mean()), [float(a.mean()) if a.size else None for a in classes]


def _pixels(images: Images) -> Float64[np.ndarray, "n pixels"]:
    return images.reshape(len(images), -1) / 255.0
