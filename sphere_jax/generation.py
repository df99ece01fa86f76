"""Drawing samples from a trained run, the same ones whatever the batch size or the mesh."""

import dataclasses
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.data.pipeline import map_batched
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.errors import UserError
from sphere_jax.experiment import Run
from sphere_jax.nn.compilation import quick_products
from sphere_jax.sampling import FewSteps, Sampler, sample_keys
from sphere_jax.training.logging import duration, say


@dataclasses.dataclass(frozen=True)
class Samples:
    """`images` uint8 (N, H, W, C), or None where only latents can be drawn (no decoder here)."""

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

    Sample i draws what it draws from (seed, i) alone.

    Raises UserError for labels outside the data's classes or a config without a generator.
    """
    method = run.generator
    if method is None:
        raise UserError("This config has no stage that generates; add a 'flow' stage, say.")
    sampler = sampler or method.sampler
    if len(labels) == 0:
        raise UserError("No samples were asked for; --num must be at least 1.")
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed {seed} must be 0..{2**32 - 1}.")
    if labels.min() < 0 or labels.max() > method.num_classes:
        raise UserError(
            f"Labels must be 0..{method.num_classes - 1}, or {method.num_classes} for no class."
        )
    labels = labels.astype(np.int32)
    key = jax.random.key(seed)

    @partial(jax.jit, compiler_options=quick_products())
    def generate(params, indices, labels, scale):
        keys = sample_keys(key, indices)
        samples, trace = method.generate(params, keys, labels, scale, sampler)
        rows = {k: jnp.broadcast_to(v[None], (len(labels), *v.shape)) for k, v in trace.items()}
        return samples, rows

    to_images = jax.jit(method.images)
    scale = jnp.float32(sampler.scale)

    def sample_batch(indices, labels):
        samples, trace = generate(run.artifacts, indices, labels, scale)
        if method.has_images:
            return {"images": to_images(run.artifacts, samples), "trace": trace}
        return {"latents": samples, "trace": trace}

    devices = run.mesh.devices.size
    batch = -(-min(run.config.sampler.batch_size, len(labels)) // devices) * devices
    started = time.monotonic()

    def progress(done):
        rate = done / max(time.monotonic() - started, 1e-9)
        left = duration((len(labels) - done) / rate)
        say(f"samples {done:,}/{len(labels):,}  {rate:,.1f} img/s  {left} left")

    indices = np.arange(len(labels), dtype=np.uint32)
    out = map_batched(
        sample_batch,
        (indices, labels),
        batch,
        batch_sharding(run.mesh),
        progress,
    )
    trace = {name: rows.mean(0) for name, rows in out["trace"].items()}
    return Samples(out.get("images"), out.get("latents"), labels, trace, sampler)
