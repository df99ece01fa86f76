"""The protocol of a score of two sides, and what differs between two protocols."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from sphere_jax import __version__
from sphere_jax.evaluation.engine import Collected
from sphere_jax.evaluation.features.base import Features
from sphere_jax.evaluation.fitting import Fitting
from sphere_jax.evaluation.sides.base import Drawn, Side

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "scikit-learn", "pillow")
# What two scores that may be compared need not have in common: the samples themselves, and where it
# was computed.
FREE = (
    "samples.name", "samples.kind", "samples.fingerprint", "samples.generation",
    "samples.exact_copies", "reference.name", "reference.kind", "generation",
)  # fmt: skip
ANYWHERE = {"versions", "device"}


def side_stamp(side: Side, collected: Collected | None, fitting: Fitting) -> dict[str, Any]:
    """What was compared: images or statistics, how many, in which sizes, of which classes."""
    stamp: dict[str, Any] = {"name": side.name, "kind": side.kind}
    if side.stored:
        counts = {found.n for found in side.stored.values()}
        stamp["statistics"] = {
            "images": counts.pop() if len(counts) == 1 else None,
            "made": side.protocol or "by another tool, which the file does not name",
            "outputs": sorted(f"{network}: {output}" for network, output in side.stored),
        }
    if collected is not None:
        looks = collected.looks
        stamp |= {
            "images": len(collected.order),
            "fingerprint": looks.fingerprint,
            "sizes": _sizes(looks.sizes),
            "resized": _resized(looks.sizes, fitting),
            "exact_copies": looks.copies,
            "left_out": len(looks.skipped),
            "classes": _balance(side.labels, collected.order),
        }
    if isinstance(side.images, Drawn):
        stamp["generation"] = dict(side.images.made)
    return stamp


def stamp_of(
    sides: Mapping[str, Mapping[str, Any]],
    networks: Sequence[Features],
    outputs: Mapping[str, Sequence[str]],
    measures: Sequence[Mapping[str, Any]],
    fitting: Fitting,
    rounding: str,
) -> dict[str, Any]:
    """Everything that must be equal before two scores may be compared, ready for JSON."""
    return {
        **sides,
        "networks": {
            network.name: {
                "fingerprint": network.fingerprint,
                "dtype": "float32",
                "outputs": list(outputs[network.name]),
            }
            for network in networks
        },
        "measures": list(measures),
        "size": list(fitting.size) if fitting.size else "of each image",
        "resize": fitting.words if fitting.size else "by the network alone",
        "rounding_of_floats": rounding or "none: uint8 as given",
        **made_here(),
    }


def made_here(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Versions and devices."""
    return {
        "versions": {
            "sphere_jax": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two protocols so that their scores cannot be compared, one line each."""
    mine, theirs = _flat(one), _flat(other)
    keys = [
        key
        for key in mine | theirs
        if not key.startswith(FREE) and not ANYWHERE & set(key.split("."))
    ]
    return [
        f"{key}: {mine.get(key, 'not given')} here, {theirs.get(key, 'not given')} there"
        for key in sorted(keys)
        if mine.get(key) != theirs.get(key)
    ]


def _flat(stamp: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by their path; the parts of a list by their place."""
    if isinstance(stamp, Mapping):
        pairs = stamp.items()
    elif isinstance(stamp, (list, tuple)) and any(isinstance(each, Mapping) for each in stamp):
        pairs = ((each.get("measure", place), each) for place, each in enumerate(stamp))
    else:
        return {prefix: list(stamp) if isinstance(stamp, tuple) else stamp}
    found = {}
    for key, value in pairs:
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _sizes(sizes: Counter) -> str | dict[str, int]:
    """ "256x256", or how many there are of each of the commonest sizes."""
    named = [(f"{height}x{width}", count) for (height, width), count in sizes.most_common()]
    if len(named) == 1:
        return named[0][0]
    rest = sum(count for _, count in named[5:])
    return dict(named[:5]) | ({f"{len(named) - 5} other sizes": rest} if rest else {})


def _resized(sizes: Counter, fitting: Fitting) -> int:
    if fitting.size is None:
        return 0
    return sum(count for size, count in sizes.items() if size != fitting.size)


def _balance(labels: np.ndarray | None, order: np.ndarray) -> dict[str, int] | None:
    """How many classes there are, and the fewest and the most images of one."""
    if labels is None:
        return None
    counts = np.unique(np.asarray(labels)[order], return_counts=True)[1]
    return {"classes": len(counts), "fewest": int(counts.min()), "most": int(counts.max())}
