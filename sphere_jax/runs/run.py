"""A run: its parts built from the config, its stages trained in order, the finished ones skipped.

W/config.json             the resolved config, with versions
W/stages/NAME.json        what stage NAME depends on, and its metrics once finished
W/stages/NAME.npz         arrays it measured (statistics for later stages, figures)
W/checkpoints/NAME/STEP/  orbax
W/metrics.jsonl, W/tensorboard/, W/samples/*.png, W/report.html, W/results.json
"""

import dataclasses
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_folder, write_json, write_npz
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.versions import versions
from sphere_jax.config.checks import ON_LATENTS
from sphere_jax.config.options import Config
from sphere_jax.config.reading import to_dict
from sphere_jax.data.latent_cache import check_cache, read_index
from sphere_jax.data.pipeline import map_batched
from sphere_jax.data.sources import Source, Split, load
from sphere_jax.distribution.mesh import (
    batch_sharding,
    check_batches,
    put_global,
    tree_shardings,
)
from sphere_jax.evaluation.figures import grid, save_grid
from sphere_jax.methods.base import Generator
from sphere_jax.nn.compilation import quick_products
from sphere_jax.runs.building import build_method, build_tokenizer
from sphere_jax.runs.image_data import images_of
from sphere_jax.runs.records import Records, check_weights_exist
from sphere_jax.tokenizers import Pretrained
from sphere_jax.tokenizers.pretrained import (
    latents_made_with,
    load_pretrained,
    statistics_to_apply,
)
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.loop import STATE_ITEM, Curve, Task, abstract_state, train
from sphere_jax.training.run_log import RunLog, measure_peak_flops
from sphere_jax.weights.catalogue import catalogue, clock_of
from sphere_jax.weights.stored import fingerprint_of, network_of

TOGETHER = 256  # images that a device maps at once, or as many as have PIXELS
PIXELS = 2**20  # of an autoencoder's widest maps in memory: 256 images of 64 px, 16 of 256 px


def open_run(config: Config, workdir: Path, mesh) -> "Run":
    """The data loaded and checked, the folder made. Raises UserError."""
    split = _cached(config) if config.data.source == "cache" else load(config.data)
    if config.data.source == "latents":
        stored = split.train.arrays["latents"].shape[1:]
        if stored != config.tokenizer.latent_shape:
            raise UserError(
                f"{config.data.path} holds latents of shape {stored} but "
                f"config.tokenizer.latent_shape={config.tokenizer.latent_shape}."
            )
    make_folder(workdir)
    return Run(config, workdir, mesh, split, split.train.fingerprint)


def _cached(config: Config) -> Split:
    """What a cache holds, normalised here if it was stored before there were statistics."""
    if not config.data.path:
        raise UserError(
            "config.data.path is empty; give the folder that python -m sphere_jax.prepare latents "
            "wrote."
        )
    folder, settings = Path(config.data.path), config.tokenizer
    statistics = statistics_to_apply(config.data, settings, read_index(folder)["made_with"])
    if statistics is None:
        check_cache(folder, latents_made_with(config.data, settings))
        return load(config.data)
    mean, std = statistics

    def normalised(part: Source) -> Source:
        latents = dataclasses.replace(part.arrays["latents"], mean=mean, std=std)
        return Source(part.arrays | {"latents": latents})

    split = load(config.data)
    return Split(normalised(split.train), normalised(split.heldout))


@dataclasses.dataclass
class Run:
    """One run folder, with what its stages have left so far."""

    config: Config
    workdir: Path
    mesh: Any
    split: Split | None = None  # None: opened for sampling, without data
    data_fingerprint: str = ""
    artifacts: dict[str, Any] = dataclasses.field(default_factory=dict)  # sharded arrays
    metrics: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    taken: str = ""  # fingerprint of the file whose weights stand for the generator's own

    @property
    def generator(self) -> Generator | None:
        """The method of the last stage that generates."""
        name = self.config.generator
        return build_method(self.config, name) if name else None

    def map_over(self, function, params, *arrays) -> np.ndarray:
        """`function(params, *batch)` over whole host arrays, jitted and sharded; progress is said
        under its name.
        """
        devices, pixels = self.mesh.devices.size, self.config.data.image_size**2
        most = max(1, min(TOGETHER, PIXELS // pixels))
        size = devices * min(most, -(-len(arrays[0]) // devices))
        mapped = partial(jax.jit(function, compiler_options=quick_products()), params)
        what = function.__name__.strip("_").replace("_", " ")
        return map_batched(mapped, arrays, size, batch_sharding(self.mesh), what)

    @property
    def records(self) -> Records:
        return Records(self.config, self.workdir, self.data_fingerprint)

    def begin(self) -> None:
        """Writes `config.json`. Raises UserError if the folder holds a stage of another config, and
        for what would stop one of the stages at its start.
        """
        check_weights_exist(self.config)
        self.records.check_stages()
        for name in self.config.stages:
            self.records.read(name, check=True)
            self._check_batch(name)
        if is_main_process():
            content = {"config": to_dict(self.config), "versions": versions()}
            write_json(self.workdir / "config.json", content)

    def train_stages(self, log: RunLog, score=None) -> None:
        """Trains what is not finished; `score(params)` scores the stage that generates meanwhile,
        where `config.evaluation.every` asks for it. Raises what `training.loop.train` raises.
        """
        every = self.config.evaluation.every
        curve = Curve(score, every) if score and every else None
        self._load_tokenizer()
        peak = None
        for name in self.config.stages:
            method = build_method(self.config, name)
            record = self.records.claim(name)
            if record["finished"]:
                frozen = method.frozen(self.artifacts)
                self._load(name, method, record)
                log.say(f"{name}: finished before, skipped")
                if record.get("yardsticks", method.yardsticks()) != method.yardsticks():
                    log.say(f"{name}: measured again, with other yardsticks than before")
                    params = {part: self.artifacts[part] for part in method.trains}
                    self._finish(name, method, frozen, params, record, log)
                continue
            peak = peak or measure_peak_flops(self.config.model.compute_dtype)
            for sentence in method.notes():
                log.say(f"{name}: {sentence}")
            task = self._task(name, method)
            folder = self.workdir / "checkpoints" / name
            show = partial(self._show, name, method, log)
            scored = curve if name == self.config.generator else None
            params = train(task, self.mesh, folder, log, peak, show, scored)
            self._finish(name, method, task.frozen, params, record, log)

    def load_stages(self) -> None:
        """The artifacts of a finished run, for sampling. Raises UserError if it is not finished."""
        self._load_tokenizer()
        for name in self.config.stages:
            record = self.records.read(name)
            if record is None or not record["finished"]:
                raise UserError(
                    f"{self.workdir} has no finished stage '{name}'; run sphere_jax.main first."
                )
            trained_on = record["depends"].get("data fingerprint")
            if self.split is not None and trained_on != self.data_fingerprint:
                raise UserError(
                    f"{self.workdir} was trained on other data than config.data names now; put "
                    "that data back."
                )
            self.records.check_weights_files(name, record)
            self._load(name, build_method(self.config, name), record)

    def take_weights(self, path: str) -> None:
        """Those of a file in the place of the network that generates. Raises UserError."""
        name = self.config.generator
        if name is None or self.config.stage(name).method not in ON_LATENTS:
            raise UserError("--weights has the network of a 'flow' or 'sphere_latent' stage.")
        _check_clock(path, self.config.model)
        settings = dataclasses.replace(self.config.stage(name), pretrained=path)
        method = dataclasses.replace(build_method(self.config, name), settings=settings)
        self._add_artifacts(method.begin())
        self.taken = fingerprint_of(path)

    def _check_batch(self, name: str) -> None:
        settings, count = self.config.stage(name), len(self.split.train)
        check_batches(self.mesh, name, settings)
        if count < settings.batch_size:
            raise UserError(
                f"config.{name}.batch_size={settings.batch_size} is more than the {count} training "
                "examples."
            )

    def _takes_images(self, name: str) -> bool:
        """Whether stage `name` reads images, also where the data are a cache of their latents."""
        return self.config.data.source != "cache" or self.config.stage(name).method == "decoder"

    def _data_of(self, name: str) -> Split:
        cached = self.config.data.source == "cache"
        return self.images if cached and self._takes_images(name) else self.split

    @cached_property
    def images(self) -> Split:
        """Those of the data, or those that its latents were made of. Raises UserError."""
        return images_of(self.config, self.split)

    def _load_tokenizer(self) -> None:
        tokenizer = build_tokenizer(self.config)
        if isinstance(tokenizer, Pretrained):
            found = load_pretrained(tokenizer, self.config.tokenizer)
            if not any(map(self._takes_images, self.config.stages)):
                del found["encoder"]  # of what a cache holds
            self._add_artifacts(found)

    def _task(self, name: str, method) -> Task:
        settings = self.config.stage(name)
        if getattr(settings, "pretrained", ""):
            _check_clock(settings.pretrained, self.config.model)
        self._add_artifacts(method.load())
        frozen = method.frozen(self.artifacts)
        split = method.source(self._data_of(name), frozen, self.map_over)
        data = self.config.data
        return Task(
            name, method, settings, split.train, split.heldout, frozen, self.config.seed,
            data.flip, data.threads,
        )  # fmt: skip

    def _finish(self, name, method, frozen, params, record, log) -> None:
        self.artifacts |= {part: params[part] for part in method.trains}
        outcome = method.finish(params, frozen, self._data_of(name), self.map_over)
        self._add_artifacts(outcome.artifacts)
        self.metrics[name], self.arrays[name] = outcome.metrics, outcome.arrays
        for key, value in outcome.metrics.items():
            log.say(f"{name}: {key} = {value:.4g}")
        if is_main_process():
            flat = {f"array/{k}": v for k, v in outcome.arrays.items()}
            for part, leaves in outcome.artifacts.items():
                flat |= {f"artifact/{part}/{k}": v for k, v in leaves.items()}
            write_npz(self.workdir / "stages" / f"{name}.npz", flat)
            measured = {"metrics": outcome.metrics, "yardsticks": method.yardsticks()}
            write_json(self.records.file(name), record | {"finished": True} | measured)

    def _load(self, name: str, method, record: dict) -> None:
        """A finished stage: its parameters onto the mesh, its arrays to the host."""
        task = Task(
            name, method, self.config.stage(name), None, None, method.frozen(self.artifacts), 0
        )
        checkpoints = Checkpoints(self.workdir / "checkpoints" / name)
        step = checkpoints.latest()
        if step != task.settings.steps:
            raise UserError(
                f"Stage '{name}' of {self.workdir} is finished but its last checkpoint is gone; "
                f"delete stages/{name}.json there and run sphere_jax.main again."
            )
        item = STATE_ITEM[task.settings.weights]
        params = checkpoints.restore_item(step, item, abstract_state(task, self.mesh)[item])
        checkpoints.close()
        self.artifacts |= {part: params[part] for part in method.trains}
        self.metrics[name], self.arrays[name], artifacts = record["metrics"], {}, {}
        file = self.workdir / "stages" / f"{name}.npz"
        try:
            with np.load(file, allow_pickle=False) as stored:
                for key in stored.files:
                    kind, *path = key.split("/")
                    if kind == "array":
                        self.arrays[name][path[0]] = stored[key]
                    else:
                        artifacts.setdefault(path[0], {})[path[1]] = stored[key]
        except Exception as error:  # zipfile raises its own kinds for a damaged archive
            raise UserError(
                f"{file} cannot be read ({error}); delete stages/{name}.json."
            ) from error
        self._add_artifacts(artifacts)

    def _add_artifacts(self, artifacts: dict) -> None:
        self.artifacts |= put_global(self.mesh, artifacts, tree_shardings(self.mesh, artifacts))

    def _show(self, name, method, log: RunLog, step: int, pictures: np.ndarray) -> None:
        if is_main_process():
            save_grid(
                pictures,
                self.workdir / "samples" / f"{name}_{step:06d}.png",
                method.preview_columns,
            )
            log.picture(name, step, "preview", grid(pictures, method.preview_columns))


def _check_clock(path: str, model) -> None:
    """Raises UserError if converted weights of a generator are on another clock than `model`."""
    name, ours = network_of(path), getattr(model, "clock", "noise_at_one")
    entry = catalogue().get(name)
    if ours == "unit_sphere" and name.startswith("rae_lightning_dit"):
        return  # one layout for RAE's networks and RJF's: which one it is, only the config knows
    if entry is not None and entry.group == "generators" and clock_of(name) != ours:
        raise UserError(
            f"{path} holds '{name}', which says its field on another clock: set "
            f"config.model.clock='{clock_of(name)}', not '{ours}'."
        )
