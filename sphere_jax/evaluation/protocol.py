"""What a number means: everything that must be equal before two scores may be compared."""

from collections.abc import Mapping
from typing import Any

from sphere_jax.evaluation.score import Reference
from sphere_jax.evaluation.stamp import made_here

ROUNDING = "clip to [-1, 1], then round(127.5 x + 127.5) to nearest"  # nn/pixels.py
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scikit-learn")
RENAMED = {  # keys of older JSON files
    "yardstick": "real_data",
    "judge": "pixel_classifier",
    "taken": "override",
    "accuracy_on_images_set_aside": "held_out_accuracy",
}


def protocol(
    reference: Reference,
    reference_name: str,
    samples: int,
    neighbours: int,
    generation: dict[str, Any] | None,
) -> dict[str, Any]:
    """The stamp that goes beside scores of so many `samples`, ready for JSON.

    `generation` says how samples were drawn: seed, sampler settings, NFE, EMA or raw weights. None
    means images of unknown origin, from a file.
    """
    network, split = reference.network, reference.split
    classifier = reference.pixel_classifier
    return {
        "features": {
            "name": network.name,
            "fingerprint": network.fingerprint,
            "length": reference.heldout_features.shape[1],
            "held_out_accuracy": network.accuracy,
        },
        "pixel_classifier": classifier
        and {"name": classifier.name, "training_images": len(classifier.pixels)},
        "reference": {
            "name": f"{reference_name}, held-out split",
            "images": len(split.heldout),
            "fingerprint": split.heldout.fingerprint,
        },
        "training_split": {"images": len(split.train), "fingerprint": split.train.fingerprint},
        "image_shape": list(network.image_shape),
        "samples": samples,
        "precision_recall": {
            "neighbours": neighbours,
            "images_on_each_side": min(samples, len(split.heldout)),
        },
        "generation": generation or "images from a file",
        "rounding_to_uint8": ROUNDING,
        **made_here(PACKAGES),
    }


def with_current_keys(stored: Any) -> Any:
    """Scores and protocols from a JSON file, which may be older than its keys' names."""
    if isinstance(stored, Mapping):
        return {RENAMED.get(key, key): with_current_keys(value) for key, value in stored.items()}
    if isinstance(stored, list):
        return [with_current_keys(value) for value in stored]
    return stored
