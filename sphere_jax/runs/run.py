"""One run: its folder, the parts of its config, its data, and the results of its stages.

W/config.json             the resolved config, with versions
W/classes.json            names of the classes, if the data have them
W/stages/NAME.json        what stage NAME depends on, and its metrics once finished
W/stages/NAME.npz         arrays it measured (statistics for later stages, figures)
W/checkpoints/NAME/STEP/  orbax, or in config.checkpoints.store
W/metrics.jsonl, W/tensorboard/, W/samples/*.png, W/report.html, W/results.json
"""

import dataclasses
import os
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_folder
from sphere_jax.config.options import Config
from sphere_jax.data.class_names import Classes, read_classes, with_classes_counted
from sphere_jax.data.pipeline import map_batched
from sphere_jax.data.source import Split, load
from sphere_jax.distribution.mesh import (
    batch_sharding,
    platform_of,
    put_global,
    split_batches,
    tree_shardings,
)
from sphere_jax.distribution.placement import placed
from sphere_jax.methods.base import Generator, Method
from sphere_jax.nn.compilation import quick_products
from sphere_jax.runs.network_files import load_tokenizer
from sphere_jax.runs.records import Records
from sphere_jax.runs.system import System
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.task import Task

TOGETHER = 256  # images per device and batch, fewer if they have more than PIXELS
PIXELS = 2**20  # of an autoencoder's widest maps in memory: 256 images of 64 px, 16 of 256 px


def open_run(config: Config, workdir: str | os.PathLike, mesh) -> "Run":
    """Loads and checks the data, makes the folder; `config.data.num_classes=0` becomes the number
    that the data have. Raises UserError."""
    run = Run(with_classes_counted(config), workdir, mesh)
    _ = run.split
    make_folder(workdir)
    return run


@dataclasses.dataclass
class Run:
    """artifacts: parameters and statistics by name, sharded arrays; metrics and arrays: what
    finished stages measured; override: fingerprint of the file whose weights are used in place of
    the generator's own, if any."""

    config: Config
    workdir: Path
    mesh: Any
    artifacts: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    override: str = ""

    def __post_init__(self):
        self.workdir = Path(self.workdir)
        self.jit = lru_cache(maxsize=8)(self._jit)  # a function that is mapped again compiles once

    @cached_property
    def system(self) -> System:
        return System(self.config)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.system.tokenizer

    @property
    def methods(self) -> dict[str, Method]:
        """Of every stage, in order."""
        return self.system.methods

    @property
    def generator(self) -> Generator | None:
        """The method of the last stage that generates."""
        return self.system.generator

    @cached_property
    def split(self) -> Split:
        """Its data, read on first use. Raises UserError."""
        return self.config.source.load_for(self.config)

    @cached_property
    def classes(self) -> Classes:
        """Its classes, with the names that its data had when it was started. Raises UserError."""
        count = self.config.data.num_classes
        return read_classes(self.workdir, count) or Classes(count)

    @cached_property
    def data_fingerprint(self) -> str:
        return self.split.train.fingerprint

    def data_fingerprint_like(self, other: str) -> str:
        """That of its data, to be compared with one that a run has recorded."""
        if not other or fingerprints.same_kind(self.data_fingerprint, other):
            return self.data_fingerprint
        return self.split.train.fingerprint_like(other)

    @cached_property
    def images(self) -> Split:
        """The images of its data, or those behind its latents. Raises UserError for data
        without images, and for other images than those of its latents."""
        if "images" in self.split.train.arrays:
            return self.split
        data = self.config.source.images_behind(self.config)
        images, made_of = load(data), self.config.source.made_of(self.config.data)
        for part, found in vars(images).items():
            if found.fingerprint != made_of[part]:
                raise UserError(
                    f"{data.path or data.source} holds other images than those whose latents are "
                    f"in {self.config.data.path}; give theirs by --config.evaluation.data_path."
                )
        return images

    def data_of(self, name: str) -> Split:
        """What stage `name` reads: its images, also where the data are a cache of their latents."""
        return self.split if self.methods[name].on_latents else self.images

    @property
    def records(self) -> Records:
        return Records(
            self.config, self.workdir, self.data_fingerprint_like, lambda: self.split.train.dates
        )

    def checkpoints(self, name: str) -> Checkpoints:
        """Those of stage `name`. Raises UserError."""
        options = self.config.checkpoints
        return Checkpoints(self.workdir / "checkpoints" / name, options.keep_last, options.store)

    def task(self, name: str, training: bool = False) -> Task:
        """The task of a stage whose frozen parts are loaded; for `training`, in as many
        micro-batches as the devices need. Raises UserError for batches that they do not split."""
        method = self.methods[name]
        frozen = method.frozen(self.artifacts)
        options = self.config.stage(name)
        if training:
            options = split_batches(self.mesh, name, options)
        return Task(
            name, method, options, frozen, self.config.seed, self.mesh, self.config.mesh.zero
        )

    def _jit(self, function):
        """A jitted function of `(params, *batch)` that applies networks, for the run's mesh."""
        known = placed(self.mesh, function, self.config.mesh.zero, once=True)
        return jax.jit(known, compiler_options=quick_products(platform_of(self.mesh)))

    def map_over(self, function, params, *arrays) -> np.ndarray:
        """`function(params, *batch)` over whole host arrays, jitted and sharded; progress is logged
        under its name.
        """
        devices, pixels = self.mesh.devices.size, self.config.data.image_size**2
        most = max(1, min(TOGETHER, PIXELS // pixels))
        size = devices * min(most, -(-len(arrays[0]) // devices))
        mapped = partial(self.jit(function), params)
        what = function.__name__.strip("_").replace("_", " ")
        return map_batched(mapped, arrays, size, batch_sharding(self.mesh), what)

    def add_artifacts(self, artifacts: dict) -> None:
        """Host arrays, onto the mesh."""
        self.artifacts |= put_global(
            self.mesh, artifacts, tree_shardings(self.mesh, artifacts, self.config.mesh.zero)
        )

    def load_tokenizer(self) -> None:
        """Loads what of the tokenizer comes from files, its encoder only if images are read. Raises
        UserError."""
        found = load_tokenizer(self.tokenizer, self.config.tokenizer)
        reads_images = not all(method.on_latents for method in self.methods.values())
        if not self.config.source.holds_images and not reads_images:
            encoding = self.tokenizer.encoder_parts
            found = {part: tree for part, tree in found.items() if part not in encoding}
        self.add_artifacts(found)
