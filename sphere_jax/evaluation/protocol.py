"""What a number means: everything that must be equal before two scores may be compared."""

import platform
from importlib.metadata import version
from typing import Any

import jax

from sphere_jax import __version__
from sphere_jax.evaluation.score import Reference, Score

ROUNDING = "clip to [-1, 1], then round(127.5 x + 127.5) to nearest"  # nn/pixels.py
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scikit-learn")


def protocol(
    reference: Reference,
    reference_name: str,
    score: Score,
    neighbours: int,
    generation: dict[str, Any] | None,
) -> dict[str, Any]:
    """The stamp that goes beside scores, ready for JSON.

    `generation` says how samples were drawn: seed, sampler settings, NFE, EMA or raw weights. None
    means images of unknown origin, from a file.
    """
    network, judge, split = reference.network, reference.judge, reference.split
    return {
        "features": {
            "name": network.name,
            "fingerprint": network.fingerprint,
            "length": reference.heldout_features.shape[1],
            "accuracy_on_images_set_aside": network.accuracy,
        },
        "judge": judge and {"name": judge.name, "training_images": len(judge.pixels)},
        "reference": {
            "name": f"{reference_name}, held-out split",
            "images": len(split.heldout),
            "fingerprint": split.heldout.fingerprint,
        },
        "training_split": {"images": len(split.train), "fingerprint": split.train.fingerprint},
        "image_shape": list(network.image_shape),
        "samples": score.samples,
        "precision_recall": {
            "neighbours": neighbours,
            "images_on_each_side": min(score.samples, len(split.heldout)),
        },
        "generation": generation or "images from a file",
        "rounding_to_uint8": ROUNDING,
        "versions": {
            "sphere_jax": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
