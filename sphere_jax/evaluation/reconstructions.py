"""Scores of reconstructions against the images they are of: pairs by name, and both as sets.

An "r" before a measure's name is that measure of the reconstructions against these very images:
"rfid" is rFID.

from sphere_jax.evaluation.reconstructions import evaluate_pairs

found = evaluate_pairs("reconstructed/", "originals/", ("psnr", "ssim", "lpips_alex"))
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.api import evaluate, fitting_of
from sphere_jax.evaluation.fitting import Fitting
from sphere_jax.evaluation.measures.base import all_measures, find_measure
from sphere_jax.evaluation.network_weights import Weights, files_by_name, files_of
from sphere_jax.evaluation.pairing import Pairing, pair_up
from sphere_jax.evaluation.pairs import LPIPS, compare_pairs
from sphere_jax.evaluation.sides.base import Drawn, Pictures, Pixels, Side, Stream
from sphere_jax.evaluation.sides.open_side import open_side
from sphere_jax.evaluation.stamp import made_here

TITLES = {
    "psnr": ("PSNR in dB, mean over images", "higher"),
    "ssim": ("SSIM, windows inside the image (Wang et al.)", "higher"),
    "ssim_reflected": ("SSIM, border reflected (torchmetrics)", "higher"),
    "ms_ssim": ("MS-SSIM, windows inside the image (pytorch-msssim)", "higher"),
    "ms_ssim_reflected": ("MS-SSIM, border reflected (torchmetrics)", "higher"),
    "lpips_alex": ("LPIPS, AlexNet", "lower"),
    "lpips_vgg": ("LPIPS, VGG-16", "lower"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Rows(Pictures):
    """Some images of a side in another order, brought to one size where one is named."""

    images: Pictures
    rows: np.ndarray
    fitting: Fitting = Fitting()

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> Pixels:
        return self.fitting(self.images.read(int(self.rows[row])))


def evaluate_pairs(
    samples: Any,
    reference: Any,
    metrics: Sequence[str] = ("psnr", "ssim"),
    *,
    weights: Weights = (),
    size: int = 0,
    resize: str = "bicubic",
    crop: str = "center",
    rounding: str = "",
    batch_size: int = 64,
) -> dict[str, Any]:
    """Reconstruction metrics of images and what was made of them.

    Args:
      samples, reference: each as in `evaluate`, of images. Those of folders are paired by their
        names without endings, any others by their order.
      metrics: of `TITLES`, or measures with an "r" before them. weights: files of the networks of
        LPIPS and of these measures.
      size, resize, crop: bring the images of both sides to one size first; 0: the images of a pair
        must have one.
      rounding: of floats, as in `evaluate`. batch_size: of measures.

    Returns:
      metrics: means over pairs, and what measures give, by name. standard_errors: of the means.
      protocol: all that must be equal before they may be compared. remarks: sentences about what to
      doubt.

    Raises:
      UserError: something cannot be used; one sentence says what and how to mend it.
    """
    of_sets = {name: _measure(name) for name in metrics if name not in TITLES}
    if not metrics:
        raise UserError(f"No metrics are named; give some of {', '.join(TITLES)}, say.")
    files = files_of(weights)
    only = len([name for name in metrics if name in of_sets or name in LPIPS]) == 1
    lpips = [name for name in metrics if name in LPIPS]
    held = files_by_name([LPIPS[name] for name in lpips], files, only)
    networks = {name: held[LPIPS[name]] for name in lpips}
    sides = [
        _in_memory(open_side(given, name, rounding))
        for given, name in ((samples, "samples"), (reference, "reference"))
    ]
    pairing = pair_up(*map(_names, sides), tuple(side.name for side in sides))
    fitting = fitting_of(size, resize, crop)
    pairs = [
        Rows(side.images, rows, fitting)
        for side, rows in zip(sides, (pairing.samples, pairing.reference), strict=True)
    ]
    straight = np.arange(len(pairing))  # `pairs` are in the order of the pairs
    aligned = dataclasses.replace(pairing, samples=straight, reference=straight)
    compared = compare_pairs(*pairs, aligned, [n for n in metrics if n in TITLES], networks)
    found, remarks = dict(compared.means), []
    stamp = _stamp(sides, pairing, metrics, compared.networks, fitting, rounding)
    if of_sets:
        chosen = [
            dataclasses.replace(side, images=rows, labels=None, stored={})
            for side, rows in zip(sides, pairs, strict=True)
        ]
        scored = evaluate(*chosen, of_sets.values(), weights=files, batch_size=batch_size)
        found |= {f"r{key}": value for key, value in scored["metrics"].items()}
        stamp["networks"] |= scored["protocol"]["networks"]
        stamp["measures"], remarks = scored["protocol"]["measures"], list(scored["remarks"])
    for side, count in pairing.alone.items():
        if count:
            remarks.append(f"left out of the {side}, without a partner: {count:,}")
    return {
        "metrics": found,
        "standard_errors": compared.errors,
        "protocol": stamp,
        "remarks": remarks,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `evaluate_pairs` returns, for a screen."""
    count, said = found["protocol"]["pairs"]["count"], []
    better = {
        f"r{key}": find_measure(facts["measure"]).better
        for facts in found["protocol"].get("measures", ())
        for key in facts["keys"]
    }
    for name, value in found["metrics"].items():
        words, way = TITLES.get(name) or (f"{name}: of the two sets", better[name])
        error = found["standard_errors"].get(name)
        about = "" if error is None else f" +- {error:.2g}"
        said.append(f"{words:<56} {value:10.5g}{about:<10}  {way} is better; {count:,} pairs")
    return said + [f"remark: {remark}" for remark in found["remarks"]]


def _measure(name: str) -> str:
    """The measure in "rfid". Raises UserError for another name."""
    measure = name.removeprefix("r")
    if measure == name or measure.partition(":")[0] not in all_measures():
        known = (*TITLES, *(f"r{measure}" for measure in all_measures()))
        raise UserError(f"'{name}' is no metric of pairs; {plugins.nearest(name, known)}")
    return measure


def _names(side: Side) -> Sequence[str] | int:
    """Of its images, or how many there are."""
    names = getattr(side.images, "names", None)
    return len(side.images) if names is None else list(names)


def _in_memory(side: Side) -> Side:
    """With images that can be read by number: those of a stream are read once. Raises UserError for
    a side without images."""
    if side.images is None or isinstance(side.images, Drawn):
        raise UserError(f"{side.name} holds no images that could be paired; give images.")
    if not isinstance(side.images, Stream):
        return side
    return dataclasses.replace(side, images=Listed(tuple(side.images)))


@dataclasses.dataclass(frozen=True, eq=False)
class Listed(Pictures):
    """Images in memory."""

    images: tuple[Pixels, ...]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, row: int) -> Pixels:
        return self.images[row]


def _stamp(sides, pairing: Pairing, metrics, networks, fitting: Fitting, rounding: str) -> dict:
    samples, reference = sides
    return {
        "samples": {"name": samples.name, "kind": samples.kind},
        "reference": {"name": reference.name, "kind": reference.kind},
        "pairs": {
            "count": len(pairing),
            "matched": "by order" if pairing.names is None else "by name",
            "left_out": pairing.alone,
        },
        "metrics": list(metrics),
        "networks": dict(networks),
        "size": list(fitting.size) if fitting.size else "of each pair",
        "resize": fitting.words if fitting.size else "none",
        "rounding_of_floats": rounding or "none: uint8 as given",
        **made_here(),
    }
