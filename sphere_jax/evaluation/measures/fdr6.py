"""FDr^6: Fréchet distances in six networks, each in units of the distance that validation images
have (arXiv 2604.28190, as Sphere Encoder 2 reports it; docs/evaluation.md#fdr6)."""

import dataclasses
import functools
from collections.abc import Mapping

from sphere_jax.common.errors import UserError, quoted
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.measures.base import Data, Input, Labels
from sphere_jax.evaluation.measures.frechet_distance import FrechetDistance
from sphere_jax.evaluation.sides.open_side import open_side

# The published distances of the validation set of ImageNet to its training set at 256 pixels, with
# as few digits as published, by network.
VALIDATION = {
    "imagenet256": {
        "inception_tensorflow": 1.68,
        "convnextv2_base": 56.87,
        "dinov2_vitl14_256": 14.19,
        "mae_vitl16": 0.04,
        "siglip2_so400m16": 0.60,
        "clip_vitl14_256": 5.60,
    }
}
NETWORKS = {  # of images of 256 and of 512 pixels
    256: tuple(VALIDATION["imagenet256"]),
    512: (
        "inception_tensorflow",
        "convnextv2_base_384",
        "dinov2_vitl14_518",
        "mae_vitl16",
        "siglip2_so400m16_512",
        "clip_vitl14_336_gelu",
    ),
}
LONGEST = 2048  # features, those of Inception


@dataclasses.dataclass(frozen=True)
class Fdr6(FrechetDistance):
    """The mean over six networks of FD(samples, reference) / FD(validation, reference), where the
    reference is the training set: 1 is as close to it as validation images are, lower is closer.

    pixels: of the images that are compared, 256 or 512: three networks take larger inputs then, and
      two have other weights.
    validation: "imagenet256" takes the published divisors, which are right only where the reference
      is the training set of ImageNet at 256 pixels, cropped as ADM does; else a file of statistics
      of the validation images in all six networks, as `prepare statistics` writes it.

    Raises:
      UserError: no such file, or it lacks a network. ValueError: a network is given, or pixels
        without networks or published distances.
    """

    title = "FDr^6"

    network: str = ""
    suffix = ""
    pixels: int = 256
    validation: str = "imagenet256"

    def __post_init__(self):
        if self.network:
            raise ValueError("FDr^6 has six networks of its own and takes no other.")
        if self.pixels not in NETWORKS:
            raise ValueError(f"pixels is one of {', '.join(map(str, NETWORKS))}.")
        if self.validation not in VALIDATION:
            _statistics(self.validation, NETWORKS[self.pixels])
        elif VALIDATION[self.validation].keys() != set(NETWORKS[self.pixels]):
            raise ValueError(
                f"no distances of validation images are published for {self.pixels} pixels; give "
                "validation=FILE with their statistics."
            )

    def inputs(self) -> tuple[Input, ...]:
        return tuple(Input(name, self.output, "statistics") for name in NETWORKS[self.pixels])

    def reference_inputs(self) -> tuple[Input, ...]:
        return self.inputs()

    def scores(
        self,
        samples: Mapping[Input, Data],
        reference: Mapping[Input, Data],
        labels: Labels | None = None,
    ) -> dict[str, float]:
        """ "fdr6", and of each network its ratio "fdr_NAME" and "frechet_distance_NAME"."""
        ratios, distances = {}, {}
        units = VALIDATION.get(self.validation)
        stored = None if units else _statistics(self.validation, NETWORKS[self.pixels])
        for each in self.inputs():
            distance = frechet_distance_of(samples[each], reference[each])
            if units:
                unit = units[each.network]
            else:
                unit = frechet_distance_of(stored[each], reference[each])
            if not unit > 0:
                raise UserError(
                    f"The validation images of {self.title} are the reference itself in "
                    f"{each.network}; give images that it does not contain."
                )
            ratios[f"fdr_{each.network}"] = distance / unit
            distances[f"{self.key}_{each.network}"] = distance
        return {"fdr6": sum(ratios.values()) / len(ratios), **ratios, **distances}

    def remarks(self, samples: int | None, reference: int | None, length: int) -> list[str]:
        said = super().remarks(samples, reference, LONGEST)
        if self.validation in VALIDATION:
            said.append(
                f"{self.title} is in units of the published distances of {self.validation}: they "
                "hold for the training set of ImageNet at 256 pixels as the reference alone, and "
                "that in MAE, 0.04, has one digit."
            )
        return said


@functools.cache
def _statistics(path: str, networks: tuple[str, ...]) -> dict[Input, Data]:
    """Raises UserError for a file without one of the networks."""
    stored = open_side(path, "validation").stored
    missing = [name for name in networks if (name, Fdr6.output) not in stored]
    if missing:
        raise UserError(
            f"{quoted(path)} has no statistics of {' and of '.join(missing)}; write them with "
            f"python -m sphere_jax.prepare statistics --features={','.join(networks)}."
        )
    return {Input(name, Fdr6.output, "statistics"): stored[name, Fdr6.output] for name in networks}


MEASURE = Fdr6()
