"""Sides of a comparison that come from runs and configs: samples that are drawn, and data sets."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import load_config
from sphere_jax.config.options import Config
from sphere_jax.data.class_names import with_classes_counted
from sphere_jax.data.source import Source, load
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.evaluation.sides.array_side import as_rgb
from sphere_jax.evaluation.sides.base import Drawn, Pictures, Side, Then
from sphere_jax.nn.pixels import Rounding
from sphere_jax.runs.drawing import Drawer
from sphere_jax.runs.labels import BALANCED
from sphere_jax.runs.loading import config_of_run
from sphere_jax.runs.run import Run
from sphere_jax.runs.scoring import generation_of
from sphere_jax.weights.stored import is_run_folder


@dataclasses.dataclass(frozen=True, eq=False)
class SourcePictures(Pictures):
    """The images of a data source, decoded where they are indexed."""

    name: str
    images: Any  # as `data.source.Source` has them

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[1:3]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, row: int) -> np.ndarray:
        return as_rgb(self.images[row], "", f"image {row} of {self.name}")


def data_side(config: Config, split: str = "train") -> Side:
    """The images of one part of a config's data, as training reads them.

    Raises:
      UserError: the data are not there, or are latents whose images nothing names.
    """
    data = config.source.images_behind(config)
    source: Source = vars(load(data))[split]
    name = f"{data.path or data.source} ({split})"
    kind = f"data source {data.source}, {data.image_size} px, {data.resize}"
    return Side(name, kind, SourcePictures(name, source.arrays["images"]), source.labels)


class DrawnImages(Drawn):
    """One sample of a run for each label; `made` tells how, once all are drawn."""

    def __init__(self, run: Run, labels: np.ndarray, seed: int, chosen: str, rounding: Rounding):
        self._run, self._labels, self._seed = run, labels, seed
        self._drawer = Drawer(run, seed, rounding)
        if not self._drawer.method.has_images:
            raise UserError("This run has latents only and no decoder; nothing to score here.")
        self.made: Mapping[str, Any] = {
            **generation_of(run, self._drawer.method.sampler, seed, chosen),
            "rounding": rounding,
        }

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def size(self) -> tuple[int, int]:
        return self._run.tokenizer.image_shape[:2]

    @property
    def sharding(self) -> NamedSharding:
        return batch_sharding(self._run.mesh)

    def batches(self, then: Then, params: Any) -> Iterator[tuple[jax.Array, int, Any]]:
        def in_rgb(params, images):
            images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
            return images, then(params, images)

        evaluations = []
        for (images, found), count, trace in self._drawer.batches(self._labels, in_rgb, params):
            evaluations.append(trace.get("evaluations"))
            yield images, count, found
        if evaluations[0] is not None:
            mean = float(np.concatenate(evaluations).mean())
            self.made = {**self.made, "evaluations": round(mean, 1)}


def drawn_side(
    run: Run,
    labels: np.ndarray,
    seed: int,
    chosen: str = BALANCED,
    rounding: Rounding = "nearest",
) -> Side:
    """Samples of a run, drawn while they are scored. `chosen`: how their labels were, for the
    protocol. Raises UserError where it draws no images."""
    images = DrawnImages(run, labels, seed, chosen, rounding)
    shown = labels if run.generator.conditional else None
    return Side(str(run.workdir), "samples of a run", images, shown)


def side_of(given: str, split: str = "train") -> Side | str:
    """The data of a run folder or of a config file, as a side; any other path or name as it is.

    Raises:
      UserError: a run or a config whose data are not there.
    """
    path = Path(given)
    if is_run_folder(path):
        return data_side(config_of_run(path), split)
    if path.suffix in (".py", ".json"):
        return data_side(with_classes_counted(load_config(given)), split)
    return given
