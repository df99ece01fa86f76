"""Drawing samples from a trained run, the same ones whatever the batch size or the mesh."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import Progress
from sphere_jax.data.memory import check_fits
from sphere_jax.data.pipeline import map_batched, to_host
from sphere_jax.distribution.mesh import batch_sharding, put_global
from sphere_jax.nn.pixels import Rounding
from sphere_jax.runs.partial import Partial, checksum
from sphere_jax.runs.run import Run
from sphere_jax.runs.weaker import with_weaker
from sphere_jax.sampling import sample_keys
from sphere_jax.sampling.adaptive import MAX_STEPS


@dataclasses.dataclass(frozen=True)
class Samples:
    """`drawn`: images, uint8 (N, H, W, C), or latents, float32 (N, h, w, d); `labels`: (N,) int32;
    `trace`: arrays along the path, as radius (steps + 1,); `sampler`: how they were drawn;
    `evaluations`: network evaluations an image (NFE), the mean where images differ."""

    drawn: np.ndarray
    labels: np.ndarray
    trace: dict[str, np.ndarray]
    sampler: Any

    @property
    def evaluations(self) -> int | float:
        known = self.sampler.evaluations
        return round(float(self.trace["evaluations"]), 1) if known is None else known

    @property
    def images(self) -> np.ndarray | None:
        """None where only latents were drawn, as without a decoder."""
        return self.drawn if self.drawn.dtype == np.uint8 else None

    @property
    def latents(self) -> np.ndarray | None:
        """None where images were drawn."""
        return None if self.drawn.dtype == np.uint8 else self.drawn


def balanced_labels(count: int, num_classes: int) -> np.ndarray:
    """0, 1, ..., K - 1, 0, 1, ...: equal numbers of every class."""
    return np.arange(count, dtype=np.int32) % num_classes


def check_count(run: Run, count: int) -> None:
    """Raises UserError for more samples than there is memory for."""
    made = run.tokenizer
    bytes_each = math.prod(made.image_shape) if made.decodes else 4 * math.prod(made.latent_shape)
    fix = "give a smaller --num, and draw again in other seeds"
    check_fits("The samples", count * (bytes_each + 8), fix)


def draw(run: Run, labels: np.ndarray | Sequence[int], seed: int, sampler: Any = None) -> Samples:
    """One sample for each label, by `sampler` or the config's own.

    Sample i is a function of (seed, i) alone. Raises what `Drawer` raises.
    """
    return Drawer(run, seed).draw(labels, sampler)


class Drawer:
    """Draws from one run in one seed, under any settings.

    The weaker network of auto-guidance is loaded once, and settings that differ in their guidance
    scale alone (1, which is off, apart) share one compiled program.

    Raises UserError for a config without a generator, and a weaker run that does not fit.
    """

    def __init__(self, run: Run, seed: int, rounding: Rounding = "nearest"):
        if run.generator is None:
            raise UserError("This config has no stage that generates; add a 'flow' stage, say.")
        if not 0 <= seed < 2**32:
            raise UserError(f"The seed {seed} must be 0..{2**32 - 1}.")
        self.method, self._weaker = with_weaker(run)
        self._run, self._key, self._seed = run, jax.random.key(seed), seed
        self._rounding, self._kept = rounding, {}
        self._generators: dict[Any, Callable] = {}
        if self.method.has_images:
            more = {} if rounding == "nearest" else {"rounding": rounding}
            self._plain_finish = partial(self.method.images, **more)
        else:
            self._plain_finish = self.method.at_radius
        self._finish = run.jit(self._plain_finish)

    @property
    def params(self) -> dict:
        """Of the run, which may still train, and of the weaker network."""
        return self._run.artifacts | self._weaker

    def draw(
        self,
        labels: np.ndarray | Sequence[int],
        sampler: Any = None,
        decode: bool = True,
        trained: dict | None = None,
        quiet: bool = False,
        resumes: str = "",
    ) -> Samples:
        """One sample for each label, by `sampler` or the config's own: images, or latents at the
        decode radius where the run has no decoder. If not `decode`, latents as the path ends.

        `trained` are parameters used instead of the run's own, while it still trains. `resumes` is
        a name under which what is drawn is kept in the run's folder, so that the same drawing goes
        on after a kill (`runs.partial`); `used` deletes it.
        Raises UserError for labels outside the data's classes.
        """
        sampler, labels = sampler or self.method.sampler, self._checked(labels)
        generate, scale = self._generator(sampler), jnp.float32(sampler.scale)
        radius = jnp.float32(sampler.decode_radius)
        params = self.params | (trained or {})

        def sample_batch(indices, labels):
            samples, trace = generate(params, indices, labels, scale)
            if decode:
                samples = self._finish(params, samples, radius)
            return {"drawn": samples, "trace": trace}

        indices = np.arange(len(labels), dtype=np.uint32)
        what = "" if quiet else "samples"
        if resumes and decode:
            kept = self._partial(resumes, labels, sampler, params)
            out = self._resumed(kept, sample_batch, (indices, labels), what)
        else:
            out = self._map(sample_batch, (indices, labels), what)
        trace = {name: rows.mean(0) for name, rows in out["trace"].items()}
        _check_reached(sampler, trace)
        return Samples(out["drawn"], labels, trace, sampler)

    def batches(
        self, labels: np.ndarray | Sequence[int], then: Callable, given: Any
    ) -> Iterator[tuple[Any, int, dict[str, np.ndarray]]]:
        """`then(given, images)` of the images that `draw` gives for the same labels, batch by batch
        and on the devices, how many of the first rows count, and the trace of those.

        Drawing, decoding and `then` are one compiled program. Raises UserError as `draw` does.
        """
        labels, program = self._checked(labels), self.program(then)
        for start in range(0, len(labels), size := self.batch_size(len(labels))):
            rows = np.arange(start, start + size)
            count = min(size, len(labels) - start)
            rows = np.where(rows < len(labels), rows, 0).astype(np.uint32)
            batch = put_global(
                self._run.mesh, (rows, labels[rows]), (batch_sharding(self._run.mesh),) * 2
            )
            found, trace = program(self.params, given, *batch)
            trace = {name: to_host(values)[:count] for name, values in trace.items()}
            means = {name: values.mean(0) for name, values in trace.items()}
            _check_reached(self.method.sampler, means)
            yield found, count, trace

    def program(self, then: Callable) -> Callable:
        """The compiled `(params, given, indices, labels) -> then(given, images), trace` of
        `batches`; `then` gets latents at the decode radius where the run has no decoder."""
        sampler, finish = self.method.sampler, self._plain_finish
        generate, scale = self._generate(sampler), jnp.float32(sampler.scale)
        radius = jnp.float32(sampler.decode_radius)

        @self._run.jit
        def program(params, given, indices, labels):
            samples, trace = generate(params, indices, labels, scale)
            return then(given, finish(params, samples, radius)), trace

        return program

    def _checked(self, labels: np.ndarray | Sequence[int]) -> np.ndarray:
        """int32 (N,). Raises UserError for labels outside the data's classes, or none."""
        labels, classes = np.asarray(labels), self.method.num_classes
        if len(labels) == 0:
            raise UserError("There are no samples to draw; --num must be at least 1.")
        if labels.min() < 0 or labels.max() > classes:
            raise UserError(f"Labels must be 0..{classes - 1}, or {classes} for no class.")
        return labels.astype(np.int32)

    def path(self, labels: np.ndarray, most: int, sampler: Any = None) -> dict[int, np.ndarray]:
        """What the sampler passes through: by step, at most `most` of them evenly spaced and the
        last, uint8 images (N, H, W, C) of the samples that `draw` gives for the same labels.

        Empty where the method does not show it, or has no decoder.
        """
        method, sampler = self.method, sampler or self.method.sampler
        if not (method.shows_path and method.has_images) or len(labels) == 0:
            return {}
        shared, params = self._shared(sampler), self.params
        scale, radius = jnp.float32(sampler.scale), jnp.float32(sampler.decode_radius)

        def passed(params, indices, labels):
            keys = sample_keys(self._key, indices)
            return method.path(params, keys, labels, scale, shared)

        indices = np.arange(len(labels), dtype=np.uint32)
        last = len(jax.eval_shape(passed, params, indices, labels)) - 1
        shown = np.unique(np.linspace(0, last, most).round().astype(int))

        @self._run.jit
        def decoded(params, indices, labels):
            states = passed(params, indices, labels)[shown]
            flat = states.reshape(-1, *states.shape[2:])
            images = method.images(params, flat, radius)
            return images.reshape(*states.shape[:2], *images.shape[1:]).swapaxes(0, 1)

        images = self._map(partial(decoded, params), (indices, labels))
        return {int(sampler.steps - last + i): images[:, n] for n, i in enumerate(shown)}

    def decode(self, latents: np.ndarray, radius: float) -> np.ndarray:
        """uint8 images of latents that `draw` returned, their tokens brought to `radius`, if any.

        One compiled program serves all radii.
        """
        radius = jnp.float32(radius)
        return self._map(lambda z: self._finish(self.params, z, radius), (latents,), "decoded")

    def _generate(self, sampler) -> Callable:
        """`(params, indices, labels, scale) -> samples, trace`, not compiled."""
        shared = self._shared(sampler)

        def generate(params, indices, labels, scale):
            keys = sample_keys(self._key, indices)
            samples, trace = self.method.generate(params, keys, labels, scale, shared)
            rows = {
                name: v if name == "evaluations" else jnp.broadcast_to(v, (len(labels), *v.shape))
                for name, v in trace.items()
            }
            return samples, rows

        return generate

    def _generator(self, sampler) -> Callable:
        """The same, compiled."""
        shared = self._shared(sampler)
        if shared not in self._generators:
            self._generators[shared] = self._run.jit(self._generate(sampler))
        return self._generators[shared]

    @staticmethod
    def _shared(sampler):
        """The settings of all samplers that differ in their guidance scale alone, which is traced
        (but for 1, which is off)."""
        return sampler.with_scale(1.0 if sampler.scale == 1.0 else 2.0)

    def used(self, resumes: str) -> None:
        """The samples of that name are not needed any more."""
        if kept := self._kept.pop(resumes, None):
            kept.delete()

    def _partial(self, name: str, labels: np.ndarray, sampler, params) -> Partial:
        """The files of a drawing, which depends on nothing else."""
        image = math.prod(self._run.tokenizer.image_shape or self._run.tokenizer.latent_shape)
        about = {
            "weights": int(checksum(params)),
            "labels": zlib.crc32(labels.tobytes()),
            "count": len(labels),
            "sampler": repr(sampler),
            "seed": self._seed,
            "rounding": self._rounding,
            "batch": self.batch_size(len(labels)),
            "devices": f"{self._run.mesh.devices.size} x {jax.devices()[0].device_kind}",
        }
        self._kept[name] = Partial(self._run.workdir, name, about, image * len(labels))
        return self._kept[name]

    def _resumed(self, kept: Partial, function, arrays, what):
        """`_map` of what is not in files yet, batch by batch, together with what is."""
        size, count, parts = self.batch_size(len(arrays[0])), len(arrays[0]), kept.rows()
        before = sum(len(rows["drawn"]) for rows in parts)
        progress = Progress(what, count) if what else None
        for start in range(before, count, size):
            batch = tuple(array[start : start + size] for array in arrays)
            out = map_batched(function, batch, size, batch_sharding(self._run.mesh))
            rows = {"drawn": out["drawn"]} | {f"trace/{k}": v for k, v in out["trace"].items()}
            kept.add(rows)
            parts.append(rows)
            if progress:
                progress.done(start + len(batch[0]))
        whole = {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}
        trace = {name.removeprefix("trace/"): v for name, v in whole.items() if name != "drawn"}
        return {"drawn": whole["drawn"], "trace": trace}

    def _map(self, function, arrays, what=""):
        """`function` over host arrays, in batches of the sampler's size on the run's mesh."""
        size = self.batch_size(len(arrays[0]))
        return map_batched(function, arrays, size, batch_sharding(self._run.mesh), what)

    def batch_size(self, count: int) -> int:
        """Samples drawn at once of `count`: a multiple of the devices."""
        devices = self._run.mesh.devices.size
        size = min(self._run.config.sampler.batch_size, count)
        return -(-size // devices) * devices


def _check_reached(sampler: Any, trace: dict[str, np.ndarray]) -> None:
    """Raises UserError where an adaptive solver has given up."""
    if not np.isfinite(trace.get("evaluations", 0.0)):
        raise UserError(
            f"{sampler} did not reach its tolerance in {MAX_STEPS:,} steps: raise "
            "config.sampler.rtol and atol, or check the weights for NaN."
        )
