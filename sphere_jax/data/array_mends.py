"""What to change in arrays that are not quite images or labels, in words for an error.

People's samplers write images as floats, channels first, signed or with transparency, and labels as
text, one-hot or in a column. None is converted silently: which of two readings is meant is often a
guess.
"""

import numpy as np

CHUNK = 256  # images looked at together
CAST = ".astype('uint8')"


def mend_of_images(images: np.ndarray) -> str:
    """For images that are not uint8 (N, H, W, 1 or 3): "; save ...", or "" where it is unclear."""
    steps = [*_shape_steps(images), *_value_steps(images)]
    return f"; save {steps[0]}" + "".join(f", then {s}" for s in steps[1:]) if steps else ""


def _shape_steps(images: np.ndarray) -> list[str]:
    if images.ndim != 4 or images.shape[-1] in (1, 3):
        return []
    if images.shape[1] in (1, 3, 4):
        steps = ["images.transpose(0, 2, 3, 1)"]
        return steps + (["images[..., :3]"] if images.shape[1] == 4 else [])
    return ["images[..., :3], without transparency"] if images.shape[-1] == 4 else []


def _value_steps(images: np.ndarray) -> list[str]:
    kind = images.dtype.kind
    if images.dtype == np.uint8 or images.size == 0 or kind not in "biuf":
        return []
    if kind == "b":
        return [f"255 * images{CAST}"]
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return []
    if kind == "f":
        scaled = "images"
        if low < 0 and max(-low, high) <= 2:  # decoders overshoot [-1, 1] a little
            scaled = "127.5 * images + 127.5"
        elif low >= 0 and high <= 1.5:
            scaled = "255 * images"
        clipped = f"numpy.clip({scaled}, 0, 255)"
        return [f"numpy.round({clipped}){CAST} (values run from {low:.3g} to {high:.3g})"]
    if images.dtype == np.int8:
        return [f"(images.astype('int16') + 128){CAST} if -128 is black"]
    if low >= 0 and high <= 255:
        return [f"images{CAST}"]
    if images.dtype == np.uint16:
        return [f"(images // 257){CAST}"]
    return []


def mend_of_labels(labels: np.ndarray, count: int) -> str:
    """For labels that are not integers (count,): "; save ...", or "" where it is unclear."""
    if labels.shape == (count, 1):
        return "; save labels[:, 0]"
    if labels.ndim == 2 and len(labels) == count and labels.dtype.kind in "biuf":
        return "; save labels.argmax(axis=1)" if _one_hot(labels) else ""
    if labels.shape != (count,):
        return ""
    if labels.dtype.kind in "US":
        return "; save numbers from 0, say numpy.unique(labels, return_inverse=True)[1]"
    if labels.dtype.kind == "b" or (labels.dtype.kind == "f" and np.all(labels == labels // 1)):
        return "; save labels.astype('int64')"
    return ""


def _one_hot(rows: np.ndarray) -> bool:
    return bool(np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1))


def doubt_about_pixels(images: np.ndarray) -> str:
    """What is wrong with values of uint8 images (N, ...), and the mend; "" if nothing is.

    Reads no further than to the first images with ordinary values.
    """
    seen = np.zeros(256, bool)
    for start in range(0, len(images), CHUNK):
        seen[np.asarray(images[start : start + CHUNK]).ravel()] = True
        if seen[2:255].any() and seen.sum() > 1:
            return ""
    values = np.flatnonzero(seen).tolist()
    if values == [0]:
        return "are all black; save pixels in 0..255"
    if len(values) == 1:
        return f"are of one value, {values[0]}, everywhere; save pixels in 0..255"
    if values == [0, 1]:
        return (
            "hold only zeros and ones, so they were cast without a factor of 255; save "
            f"numpy.round(255 * images){CAST}"
        )
    if 1 in values:  # 0, 1 and 255, which is -1
        return (
            f"hold only the values {', '.join(map(str, values))}, as images in [-1, 1] do that "
            f"were cast as they are; save numpy.round(127.5 * images + 127.5){CAST}"
        )
    return ""


def all_alike(images: np.ndarray) -> bool:
    """Whether two or more images (N, ...) are one and the same."""
    chunks = (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
    return len(images) > 1 and all(np.array_equal(c, np.broadcast_to(images[0], c.shape))
                                   for c in chunks)  # fmt: skip


def doubt_about_classes(labels: np.ndarray) -> str:
    """What is wrong with integers (N,) as the classes of a reference, which are all of 0..K-1, and
    the mend; "" if nothing is."""
    found = np.unique(labels)
    if len(found) == 0 or np.array_equal(found, np.arange(len(found))):
        return ""
    low, high = found[0], found[-1]
    if high - low == len(found) - 1:
        shift = f"labels - {low}" if low > 0 else f"labels + {-low}"
        return f"run from {low} to {high}, not from 0; save {shift}"
    return (
        f"are {len(found)} numbers from {low} to {high} with gaps, not 0..{len(found) - 1}; save "
        "numpy.unique(labels, return_inverse=True)[1]"
    )
