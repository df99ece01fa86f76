"""Scores of samples against a reference, from arrays, iterators or paths: no config and no run.

from sphere_jax.evaluation import evaluate

found = evaluate("samples/", "reference.npz", ("fid", "kid"), weights="inception.safetensors")
print(found["metrics"], found["remarks"], found["protocol"])
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import log
from sphere_jax.data.array_checks import check_labels
from sphere_jax.data.image_choices import CROPS, RESIZES, ROUNDINGS
from sphere_jax.evaluation.engine import Collected, Wanted, collect
from sphere_jax.evaluation.features.base import FIRST, Features
from sphere_jax.evaluation.fitting import Fitting
from sphere_jax.evaluation.measures.base import Input, Measure, find_measure
from sphere_jax.evaluation.network_weights import Weights, load_networks
from sphere_jax.evaluation.sides.base import Side
from sphere_jax.evaluation.sides.open_side import open_side
from sphere_jax.evaluation.sides.stored_statistics import stored_as, write_statistics
from sphere_jax.evaluation.stamp import side_stamp, stamp_of


def evaluate(
    samples: Any,
    reference: Any = None,
    metrics: Iterable[str] = (),
    *,
    weights: Weights = (),
    labels: Any = None,
    size: int = 0,
    resize: str = "bicubic",
    crop: str = "center",
    rounding: str = "",
    batch_size: int = 64,
    skip_bad: bool = False,
    fetch: bool = False,
) -> dict[str, Any]:
    """Metrics of samples against a reference, with their protocol.

    Args:
      samples, reference: each a path (a folder of pictures or ArrayRecord files, an `.npz` of
        images or statistics), an array uint8 (N, H, W, 1 or 3), an iterable of images, batches or
        Pillow images, or a `Side`. The reference may be a name as "imagenet256_adm", and None where
        no metric needs one.
      metrics: names of files of `measures/`, with settings or not: "fid", "kid",
        "precision_recall:neighbours=5", "frechet_distance:network=dinov2_vitl14".
      weights: files of the networks' weights, as `sphere_jax.convert` writes them.
      labels: (N,) the classes that samples were drawn for, where they have none of their own.
      size: pixels that all images are brought to; 0: those of the reference where all its images
        have one size, else every image goes to the networks in its own size.
      resize, crop: how, see `Fitting`; crop is "center" or "none".
      rounding: how floats in [-1, 1] become uint8: "nearest", "truncated" or "floor"; "" refuses
        floats.
      batch_size: images at once, over all devices of a process.
      skip_bad: leave out images that cannot be used; their number and names are in the result.
      fetch: download a named reference that is not here.

    Returns:
      metrics: the values by key. protocol: all that must be equal before they may be compared.
      remarks: sentences about what to doubt.

    Raises:
      UserError: something cannot be used; one sentence says what and how to mend it.
    """
    fitting = fitting_of(size, resize, crop)
    if rounding and rounding not in ROUNDINGS:
        raise UserError(f"rounding='{rounding}' is not one of {', '.join(ROUNDINGS)}.")
    measures = [find_measure(name) for name in metrics]
    mine = open_side(samples, "samples", rounding)
    if labels is not None:
        mine = dataclasses.replace(mine, labels=check_labels(labels, len(labels), "the samples"))
    theirs = None if reference is None else open_side(reference, "reference", rounding, fetch)
    _check(measures, theirs)
    networks = load_networks({each.network for m in measures for each in _inputs(m)}, weights)
    known, images, stamps, remarks = {}, {}, {}, []
    for role, side in (("reference", theirs), ("samples", mine)):
        if side is None:
            continue
        inputs = {each for measure in measures for each in _of(role, measure)}
        known[role] = {i: side.stored[i[:2]] for i in inputs if _is_stored(i, side, networks)}
        remarks += _unnamed(side, {each.network for each in known[role]})
        wanted = _wanted(inputs - known[role].keys(), networks)
        found = _collected(side, role, wanted, fitting, batch_size, skip_bad)
        if found is not None:
            known[role] |= {each: _data(found, each) for each in inputs - known[role].keys()}
            images[role] = found
        stamps[role] = side_stamp(side, found, fitting)
        if role == "reference" and fitting.size is None:
            fitting = dataclasses.replace(fitting, size=_one_size(side, found))
    return _scored(measures, mine, known, images, stamps, networks, fitting, rounding, remarks)


def store_statistics(
    images: Any,
    path: str | os.PathLike,
    features: Sequence[str],
    *,
    weights: Weights = (),
    size: int = 0,
    resize: str = "bicubic",
    crop: str = "center",
    rounding: str = "",
    batch_size: int = 64,
    skip_bad: bool = False,
    fetch: bool = False,
) -> dict[str, Any]:
    """Writes the statistics of images, which `evaluate` takes as a reference, to an `.npz`.

    Args:
      images: as in `evaluate`. path: of the file. features: names of feature networks; of each,
        what other tools store of it is stored, else its first output.

    Returns:
      The protocol in the file.

    Raises:
      UserError: something cannot be used, or nothing can be written.
    """
    fitting, side = fitting_of(size, resize, crop), open_side(images, "images", rounding, fetch)
    networks = load_networks(features, weights)
    kept = {name: tuple(stored_as(name)) or (FIRST,) for name in networks}
    wanted = [Wanted(networks[name], output, False) for name in kept for output in kept[name]]
    found = _collected(side, "images", wanted, fitting, batch_size, skip_bad)
    for doubt in found.looks.doubts():
        log(f"{side.name}: {doubt}.")
    stamps = {"images": side_stamp(side, found, fitting)}
    protocol = stamp_of(stamps, tuple(networks.values()), kept, (), fitting, rounding)
    protocol["image_size"] = fitting.size or _one_size(side, found)
    if is_main_process():
        write_statistics(path, dict(found.statistics), protocol)
    return protocol


def _scored(
    measures, mine, known, images, stamps, networks, fitting, rounding, remarks
) -> dict[str, Any]:
    labels = mine.labels
    if labels is not None and "samples" in images:
        labels = labels[images["samples"].order]
    results = [m.result(known["samples"], known.get("reference", {}), labels) for m in measures]
    values: dict[str, float] = {}
    for role, found in images.items():
        remarks += [f"{stamps[role]['name']}: {doubt}." for doubt in found.looks.doubts()]
        if fitting.size is None and len(found.looks.sizes) > 1:
            remarks.append(
                f"{stamps[role]['name']}: images have {len(found.looks.sizes):,} sizes, and each "
                "went to the networks in its own; size brings them to one first."
            )
        if resized := stamps[role]["resized"]:
            height, width = fitting.size
            remarks.append(
                f"{stamps[role]['name']}: {resized:,} images were brought to {height}x{width} "
                f"({fitting.words})."
            )
    for result in results:
        values |= result.values
        remarks += result.remarks
    outputs: dict[str, list[str]] = {name: [] for name in networks}
    for each in sorted({i[:2] for m in measures for i in _inputs(m)}):
        outputs[each[0]].append(each[1])
    facts = [
        {**result.facts, "keys": list(result.values), "better": measure.better}
        for measure, result in zip(measures, results, strict=True)
    ]
    stamp = stamp_of(stamps, tuple(networks.values()), outputs, facts, fitting, rounding)
    return {"metrics": values, "remarks": list(dict.fromkeys(remarks)), "protocol": stamp}


def _one_size(side: Side, found: Collected | None) -> tuple[int, int] | None:
    """That of all images of a side, if they have one and it is known: from what was read, from
    the file's header, or from the protocol of stored statistics."""
    if found is not None:
        return next(iter(found.looks.sizes)) if len(found.looks.sizes) == 1 else None
    stored = (side.protocol or {}).get("image_size")
    return getattr(side.images, "size", None) or (tuple(stored) if stored else None)


def fitting_of(size: int, resize: str, crop: str) -> Fitting:
    """What the arguments of `evaluate` ask for. Raises UserError for unknown names."""
    for name, value, known in (("resize", resize, RESIZES), ("crop", crop, CROPS)):
        if value not in known:
            raise UserError(f"{name}='{value}' is not one of {', '.join(known)}.")
    if crop == "none" and resize == "adm":
        raise UserError(
            "resize='adm' is defined with a crop; give crop='center' or another resize."
        )
    return Fitting((size, size) if size else None, resize, crop == "center")


def _check(measures: Sequence[Measure], reference: Side | None) -> None:
    if not measures:
        raise UserError("No metrics are named; give some, say fid.")
    for measure in measures:
        if measure.reference_inputs() and reference is None:
            raise UserError(f"{measure.title} needs a reference; give one.")


def _of(role: str, measure: Measure) -> tuple[Input, ...]:
    return measure.inputs() if role == "samples" else measure.reference_inputs()


def _inputs(measure: Measure) -> tuple[Input, ...]:
    return (*measure.inputs(), *measure.reference_inputs())


def _is_stored(each: Input, side: Side, networks: Mapping[str, Features]) -> bool:
    """Whether the side's file has these statistics. Raises UserError for those of other weights."""
    if each.needs != "statistics" or each[:2] not in side.stored:
        return False
    network = networks[each.network]
    made = (side.protocol or {}).get("networks", {}).get(network.name, {})
    if made.get("fingerprint", network.fingerprint) != network.fingerprint:
        raise UserError(
            f"{side.name} has statistics of {network.name} with weights {made['fingerprint']}, and "
            f"those given are {network.fingerprint}; use the same weights on both sides."
        )
    return True


def _unnamed(side: Side, networks: set[str]) -> list[str]:
    """What to doubt of stored statistics of `networks` that do not say how they were made."""
    if side.protocol or not networks:
        return []
    return [
        f"{side.name} does not say what its statistics are of; they were taken for those of "
        f"{', '.join(sorted(networks))}."
    ]


def _wanted(inputs: Iterable[Input], networks: Mapping[str, Features]) -> list[Wanted]:
    rows: dict[tuple[str, str], bool] = {}
    for each in sorted(inputs):
        rows[each[:2]] = rows.get(each[:2], False) or each.needs == "rows"
    return [Wanted(networks[network], output, r) for (network, output), r in rows.items()]


def _collected(
    side: Side, role: str, wanted: Sequence[Wanted], fitting: Fitting, batch_size, skip_bad
) -> Collected | None:
    if not wanted:
        return None
    if side.images is None:
        raise UserError(
            f"The {role}, {side.name}, holds statistics of "
            f"{', '.join(' '.join(key) for key in side.stored)} alone, and these metrics need "
            f"images for {' '.join(wanted[0].key)}; give the images, or leave those metrics out."
        )
    log(f"{role}: {side.name}, {side.kind}")
    found = collect(side, wanted, fitting, batch_size, skip_bad)
    if len(found.order) < 2:
        raise UserError(f"{side.name} holds {len(found.order)} images, and 2 are the fewest.")
    if side.labels is not None and len(side.labels) <= found.order.max():
        raise UserError(f"{side.name} has {len(side.labels):,} labels and more images than that.")
    return found


def _data(found: Collected, each: Input) -> Any:
    return (found.statistics if each.needs == "statistics" else found.rows)[each[:2]]
