"""Drawing samples from a trained run, the same ones whatever the batch size or the mesh."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json
from sphere_jax.config.options import Config
from sphere_jax.data.pipeline import map_batched
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.methods.flow import Flow
from sphere_jax.nn.compilation import quick_products
from sphere_jax.runs.loading import load_run
from sphere_jax.runs.records import WEIGHTS_FILES, completed
from sphere_jax.runs.run import Run
from sphere_jax.sampling import FewSteps, Sampler, sample_keys


@dataclasses.dataclass(frozen=True)
class Samples:
    """`images` uint8 (N, H, W, C), or None where only latents were drawn (no decoder here, say)."""

    images: np.ndarray | None
    latents: np.ndarray | None  # (N, h, w, d) float32, instead of images
    labels: np.ndarray  # (N,) int32
    trace: dict[str, np.ndarray]  # what changed along the way, say radius (steps + 1,)
    sampler: Sampler | FewSteps


def balanced_labels(count: int, num_classes: int) -> np.ndarray:
    """0, 1, ..., K - 1, 0, 1, ...: equal numbers of every class."""
    return np.arange(count, dtype=np.int32) % num_classes


def draw(run: Run, labels: np.ndarray, seed: int, sampler: Sampler | FewSteps | None = None):
    """One sample for each label, as `Samples`, by `sampler` or the config's own.

    Sample i draws what it draws from (seed, i) alone. Raises what `Drawer` raises.
    """
    return Drawer(run, seed).draw(labels, sampler)


class Drawer:
    """Draws from one run in one seed, under any settings.

    The weaker network of auto-guidance is loaded once, and settings that differ in their guidance
    scale alone (1, which is off, apart) share one compiled program.

    Raises UserError for a config without a generator, and a weaker run that does not fit.
    """

    def __init__(self, run: Run, seed: int):
        if run.generator is None:
            raise UserError("This config has no stage that generates; add a 'flow' stage, say.")
        if not 0 <= seed < 2**32:
            raise UserError(f"The seed {seed} must be 0..{2**32 - 1}.")
        self.method, self._weaker = with_weaker(run)
        self._run, self._key = run, jax.random.key(seed)
        self._generators = {}
        finish = self.method.images if self.method.has_images else self.method.at_radius
        self._finish = jax.jit(finish, compiler_options=quick_products())

    @property
    def params(self) -> dict:
        """Of the run, which may have trained since, and of the weaker network."""
        return self._run.artifacts | self._weaker

    def draw(
        self,
        labels: np.ndarray,
        sampler=None,
        decode: bool = True,
        trained: dict | None = None,
        quiet: bool = False,
    ) -> Samples:
        """One sample for each label, by `sampler` or the config's own: images, or latents at the
        decode radius where the run has no decoder. If not `decode`, latents as the path ends.

        `trained` are parameters in the place of the run's own, say of a run that still trains.
        Raises UserError for labels outside the data's classes.
        """
        method, sampler = self.method, sampler or self.method.sampler
        if len(labels) == 0:
            raise UserError("No samples were asked for; --num must be at least 1.")
        if labels.min() < 0 or labels.max() > method.num_classes:
            raise UserError(
                f"Labels must be 0..{method.num_classes - 1}, or {method.num_classes} for no class."
            )
        labels = labels.astype(np.int32)
        generate, scale = self._generator(sampler), jnp.float32(sampler.scale)
        radius = jnp.float32(sampler.decode_radius)
        kind = "images" if decode and method.has_images else "latents"
        params = self.params | (trained or {})

        def sample_batch(indices, labels):
            samples, trace = generate(params, indices, labels, scale)
            if decode:
                samples = self._finish(params, samples, radius)
            return {kind: samples, "trace": trace}

        indices = np.arange(len(labels), dtype=np.uint32)
        out = self._map(sample_batch, (indices, labels), "" if quiet else "samples")
        trace = {name: rows.mean(0) for name, rows in out["trace"].items()}
        return Samples(out.get("images"), out.get("latents"), labels, trace, sampler)

    def decode(self, latents: np.ndarray, radius: float) -> np.ndarray:
        """uint8 images of latents that `draw` returned, their tokens brought to `radius`, if any.

        One compiled program serves all radii.
        """
        radius = jnp.float32(radius)
        return self._map(lambda z: self._finish(self.params, z, radius), (latents,), "decoded")

    def _generator(self, sampler):
        """The compiled `(params, indices, labels, scale) -> samples, trace`."""
        alike = sampler.with_scale(1.0 if sampler.scale == 1.0 else 2.0)  # the scale is traced
        if alike not in self._generators:

            def generate(params, indices, labels, scale):
                keys = sample_keys(self._key, indices)
                samples, trace = self.method.generate(params, keys, labels, scale, alike)
                rows = jax.tree.map(
                    lambda v: jnp.broadcast_to(v[None], (len(labels), *v.shape)), trace
                )
                return samples, rows

            self._generators[alike] = jax.jit(generate, compiler_options=quick_products())
        return self._generators[alike]

    def _map(self, function, arrays, what=""):
        """`function` over host arrays, in batches of the sampler's size on the run's mesh."""
        devices = self._run.mesh.devices.size
        size = min(self._run.config.sampler.batch_size, len(arrays[0]))
        size = -(-size // devices) * devices
        return map_batched(function, arrays, size, batch_sharding(self._run.mesh), what)


def with_weaker(run: Run):
    """The generator of a run, with the network that auto-guidance guides away from, if the config
    names its run; and the parameters of that network, {"weaker": ...} or none.

    Raises UserError if that run generates from other latents, or is not finished.
    """
    method = run.generator
    folder = getattr(run.config.sampler, "auto_guidance", "")
    if not folder:
        return method, {}
    other = load_run(Path(folder), mesh=run.mesh)
    unfit = _unfit(method, other.generator) or _other_latents(run, other)
    if unfit:
        raise UserError(f"config.sampler.auto_guidance={folder} {unfit}.")
    method = dataclasses.replace(method, weaker=other.generator.network)
    return method, {"weaker": other.artifacts["network"]}


def check_weaker(config: Config) -> None:
    """Raises UserError, before anything trains, unless the run that auto-guidance guides by is
    finished; whether it fits is for `with_weaker`."""
    folder = getattr(config.sampler, "auto_guidance", "")
    if not folder:
        return
    found = read_json(Path(folder) / "config.json") or {"config": {"stages": [""]}}
    for name in found["config"]["stages"]:
        record = read_json(Path(folder) / "stages" / f"{name}.json")
        if not record or not record["finished"]:
            raise UserError(
                f"config.sampler.auto_guidance={folder} is not the folder of a finished run."
            )


def _unfit(ours: Flow, theirs) -> str | None:
    """Why two generators have no velocities that could be compared. Networks published on another
    clock are on ours by now (`models.clock`)."""
    if not isinstance(theirs, Flow):
        return "must be the run of a 'flow' stage"
    a, b = ours.tokenizer.latent_shape, theirs.tokenizer.latent_shape
    if a != b:
        return f"has latents of shape {b}, not {a}"
    if ours.num_classes != theirs.num_classes:
        return f"knows {theirs.num_classes} classes, not {ours.num_classes}"
    if _path_of(ours) != _path_of(theirs):
        return f"learnt the velocities of {theirs.space}, not of {ours.space}"
    return None


def _path_of(flow: Flow):
    """Its space, however a sampler steps in it."""
    space = flow.space
    return dataclasses.replace(space, retraction="exp") if space.spherical else space


def _other_latents(run: Run, other: Run) -> str | None:
    """Why their latents differ, which may have one shape and mean other images."""
    a, b = _latents_of(run), _latents_of(other)
    for key in sorted(a.keys() & b.keys()) + sorted(a.keys() ^ b.keys()):
        if a.get(key) != b.get(key):
            return f"was trained on other latents: {key}={b.get(key)!r}, not {a.get(key)!r}"
    for part in run.generator.tokenizer.parts:
        both = part in other.artifacts and part in run.artifacts
        if part != "decoder" and both and not _equal(other.artifacts[part], run.artifacts[part]):
            return f"was trained on other latents: its tokenizer's {part} has other weights"
    return None


def _latents_of(run: Run) -> dict:
    """What says which latents a finished run generates, in the record of its generator: all of the
    tokenizer but its decoder, or the data, where they are latents."""
    file = run.workdir / "stages" / f"{run.config.generator}.json"
    if not file.exists():  # not from a folder
        return {}
    found = completed(json.loads(file.read_text())["depends"], run.config)
    if run.config.data.source == "latents":
        return {key: found.get(key) for key in ("config.tokenizer.name", "data fingerprint")}
    return {
        key: value
        for key, value in found.items()
        if key.startswith("config.tokenizer.") and "decoder" not in key
        if not key.endswith(WEIGHTS_FILES)  # where they lie; their fingerprints say what they are
    }


def _equal(a, b) -> bool:
    """Whether two trees of arrays are the same."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(
        x.shape == y.shape and bool(jnp.array_equal(x, y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
