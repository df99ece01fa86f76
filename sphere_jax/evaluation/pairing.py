"""Which image of one side belongs to which of another: by the names of their files, or by order."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import log

NAMED = 3  # images that a message lists
Rows = Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairing:
    """`samples[i]` and `reference[i]` are the rows of pair i; names: of the pairs, None where they
    are paired by order; alone: how many images of a side have no partner, by the side."""

    samples: Rows
    reference: Rows
    names: Sequence[str] | None
    alone: dict[str, int]

    def __len__(self) -> int:
        return len(self.samples)


def pair_up(
    samples: Sequence[str] | int,
    reference: Sequence[str] | int,
    sides: tuple[str, str] = ("the samples", "the reference"),
) -> Pairing:
    """Pairs of two sides, each given by the paths of its images or, without names, their number.

    Names are paths without their ending, so that `a/1.png` belongs to `a/1.jpg`; where no two are
    equal, the names of the files alone count. Images without a partner are left out, and a line
    says so. Sides of which one has no names are paired by order.

    Args:
      sides: what messages call them.

    Raises:
      UserError: no image has a partner, two images of a side have one name, or sides without names
        have different numbers of images.
    """
    if isinstance(samples, int) or isinstance(reference, int):
        counts = [side if isinstance(side, int) else len(side) for side in (samples, reference)]
        if counts[0] != counts[1]:
            raise UserError(
                f"{sides[0]} holds {counts[0]:,} images and {sides[1]} {counts[1]:,}, and one of "
                "them has no names to pair them by; give as many, in the same order."
            )
        rows = np.arange(counts[0])
        return Pairing(rows, rows, None, {"samples": 0, "reference": 0})
    stems = [[_stem(name) for name in side] for side in (samples, reference)]
    if not set(stems[0]) & set(stems[1]):
        stems = [[stem.rpartition("/")[2] for stem in side] for side in stems]
    both = set(stems[0]) & set(stems[1])
    if not both:
        raise UserError(
            f"No image of {sides[0]} ({samples[0]}, ...) has the name of one of {sides[1]} "
            f"({reference[0]}, ...); pairs are matched by the names of their files."
        )
    for side, found in zip(sides, stems, strict=True):
        _check_unique(found, both, side)
        _say_alone([stem for stem in found if stem not in both], side, len(found))
    names = sorted(both)
    places = [{stem: row for row, stem in enumerate(side)} for side in stems]
    rows = [np.array([place[name] for name in names]) for place in places]
    alone = {
        side: len(found) - len(names)
        for side, found in zip(("samples", "reference"), stems, strict=True)
    }
    return Pairing(*rows, names, alone)


def _stem(name: str) -> str:
    """A path without the ending of its file."""
    folder, slash, file = name.rpartition("/")
    stem, dot, _ = file.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem else file}"


def _check_unique(stems: Sequence[str], both: set[str], side: str) -> None:
    twice = sorted(name for name, count in Counter(stems).items() if count > 1 and name in both)
    if twice:
        raise UserError(
            f"{side} holds more than one image named '{twice[0]}', so pairs are not clear; rename "
            "or delete the others."
        )


def _say_alone(alone: Sequence[str], side: str, count: int) -> None:
    if alone:
        more = ", ..." if len(alone) > NAMED else ""
        log(
            f"warning: {len(alone):,} of {count:,} images of {side} have no partner and are left "
            f"out: {', '.join(alone[:NAMED])}{more}"
        )
