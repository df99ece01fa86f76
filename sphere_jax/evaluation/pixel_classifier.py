"""Does a sample show the class that was asked for? Asked of a judge that shares no weights.

The judge is a support vector machine with a Gaussian kernel on raw pixels of the training split,
so neither a generator nor the feature network can have been fitted to it. Its own accuracy on
held-out images is the most that an agreement can mean.
"""

import dataclasses

import numpy as np
from sklearn.svm import SVC

from sphere_jax.common.progress import Progress
from sphere_jax.evaluation.feature_checks import check_images, check_labels

LARGEST_SET = 5_000  # the kernel matrix is 200 MB then
PENALTY = 10.0
TOGETHER = 1024  # images that are judged at once


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A fitted support vector machine, and the pixels (N, H W C) and kernel it was fitted with."""

    machine: SVC
    pixels: np.ndarray
    gamma: float
    image_shape: tuple[int, int, int]
    num_classes: int

    name = "rbf_svm_on_pixels"

    def predict(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, C) to class numbers (N,) int64.

        Raises:
          ValueError: the images are not uint8 of the judge's shape.
        """
        images = check_images(images, "images")
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"The judge takes images of shape {self.image_shape}, not {images.shape[1:]}."
            )
        found, progress = [], Progress("judged", len(images))
        for start in range(0, len(images), TOGETHER):  # pixels and kernel are float64
            progress.done(start)
            some = _pixels(np.asarray(images[start : start + TOGETHER]))
            found.append(self.machine.predict(_kernel(some, self.pixels, self.gamma)))
        return np.concatenate(found)


def train_judge(
    images: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int = 0
) -> Judge:
    """Fits the judge to (at most 5,000 images, drawn by `seed`, of) the training split.

    Raises:
      ValueError: wrong images or labels, or fewer than two classes among them.
    """
    images = check_images(images, "The judge's images", at_least=2)
    labels = check_labels(labels, images, num_classes, "The judge's labels")
    if len(images) > LARGEST_SET:
        rows = np.random.default_rng(seed).choice(len(images), LARGEST_SET, replace=False)
        images, labels = images[rows], labels[rows]
    if len(np.unique(labels)) < 2:
        raise ValueError("The judge needs images of at least 2 classes.")
    pixels = _pixels(np.asarray(images))
    variance = pixels.var()
    if variance == 0:
        raise ValueError("The judge's images are all of one flat colour.")
    gamma = 1.0 / (pixels.shape[1] * variance)
    machine = SVC(C=PENALTY, kernel="precomputed").fit(_kernel(pixels, pixels, gamma), labels)
    return Judge(machine, pixels, gamma, images.shape[1:], num_classes)


def class_agreement(
    judge: Judge, images: np.ndarray, labels: np.ndarray
) -> tuple[float, list[float | None]]:
    """Part of the images that the judge takes for the asked class: overall, and class by class.

    On held-out images with their true labels this is the judge's accuracy. A class without images
    has None.

    Raises:
      ValueError: wrong images or labels.
    """
    images = check_images(images, "images")
    labels = check_labels(labels, images, judge.num_classes, "labels")
    agrees = judge.predict(images) == labels
    classes = [agrees[labels == c] for c in range(judge.num_classes)]
    return float(agrees.mean()), [float(a.mean()) if a.size else None for a in classes]


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


def _kernel(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
    """exp(-gamma |a - b|^2), (A, B): as one matrix product, ten times as quick as SVC's own."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    return np.exp(-gamma * squared)
