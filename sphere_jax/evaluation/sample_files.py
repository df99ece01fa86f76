"""Images in a file, `.npz`, that are to be scored: checked against what they are scored against."""

import numpy as np
from jaxtyping import Int32, UInt8

from sphere_jax.common.errors import UserError
from sphere_jax.common.plugins import nearest
from sphere_jax.common.progress import log
from sphere_jax.data.array_checks import check_images, check_labels, check_pixels
from sphere_jax.data.class_names import Classes
from sphere_jax.data.memory import check_fits
from sphere_jax.data.npz_files import read_npz

NAMED = 5  # classes that a message lists


def read_samples(
    path: str, image_shape: tuple[int, int, int], classes: Classes
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"] | None]:
    """`images` and `labels`, if there are any, in random order: files are often sorted by class.

    Says so where a class has none.

    Args:
      image_shape: (H, W, C) of the reference. classes: of the reference; where they have names,
        labels may be those.

    Raises:
      UserError: images of another shape, unscaled or all black; labels that are no classes.
    """
    arrays = read_npz(path, ("images",), wanted=("images", "labels"))
    images, labels = check_images(arrays["images"], path), arrays.get("labels")
    _check_shape(images.shape[1:], image_shape, path)
    check_pixels(images, path)
    if labels is not None:
        if labels.dtype.kind in "US" and classes.named:
            labels = _numbered(labels, classes, path)
        labels = check_labels(labels, len(images), path)
        _check_classes(labels, classes.count, path)
    check_fits(f"The images of {path}, shuffled,", images.nbytes, "give fewer images")
    shuffled = np.random.default_rng(0).permutation(len(images))
    return images[shuffled], None if labels is None else labels[shuffled]


def _check_shape(found: tuple[int, ...], expected: tuple[int, int, int], path: str) -> None:
    (height, width, channels), (h, w, c) = found, expected
    if (height, width) != (h, w):
        raise UserError(
            f"Images of {path} are {height}x{width} and those of the reference {h}x{w}; resize one "
            "or the other."
        )
    if channels != c:
        fix = "save numpy.repeat(images, 3, axis=-1)" if c == 3 else "make them grey"
        kinds = {1: "grey", 3: "RGB"}
        raise UserError(
            f"Images of {path} are {kinds[channels]} and those of the reference {kinds[c]}; {fix}."
        )


def _numbered(names: np.ndarray, classes: Classes, path: str) -> np.ndarray:
    known = {name: label for label, name in enumerate(classes.names)}
    found, places = np.unique(names.astype(str), return_inverse=True)
    for name in (name for name in found.tolist() if name not in known):
        raise UserError(f"Labels of {path} name '{name}', no class here; {nearest(name, known)}")
    return np.array([known[name] for name in found.tolist()])[places.reshape(names.shape)]


def _check_classes(labels: np.ndarray, num_classes: int, path: str) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low == high == num_classes:  # the null label of a generator
        raise UserError(
            f"Labels of {path} are all {num_classes}, which stands for no class; leave 'labels' "
            "out of the file."
        )
    if low < 0 or high >= num_classes:
        shifted = low > 0 and high - low < num_classes
        fix = f"save labels - {low}" if shifted else "number them as the reference does"
        raise UserError(
            f"Labels of {path} run from {low} to {high} and those of the reference from 0 to "
            f"{num_classes - 1}; {fix}."
        )
    missing = np.setdiff1d(np.arange(num_classes), labels)
    if len(missing) and len(labels) >= num_classes:
        shown = ", ".join(map(str, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        log(
            f"warning: {path} has no image of {len(missing)} of the {num_classes} classes of the "
            f"reference ({shown}), which lowers recall."
        )
