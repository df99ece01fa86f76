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
from sphere_jax.nn.compilation import transformer_options
from sphere_jax.sampling import Sampler, nfe, sample_noise
from sphere_jax.training.logging import duration, say


@dataclasses.dataclass(frozen=True)
class Samples:
    """`images` uint8 (N, H, W, C), or None where only latents can be drawn (no decoder here)."""

    images: np.ndarray | None
    latents: np.ndarray  # (N, h, w, d) float32, on the space
    labels: np.ndarray  # (N,) int32
    radii: np.ndarray  # (steps + 1,) mean norm over radius along the way
    evaluations: int  # NFE: network evaluations per image
    sampler: Sampler


def balanced_labels(count: int, num_classes: int) -> np.ndarray:
    """0, 1, ..., K - 1, 0, 1, ...: equal numbers of every class."""
    return np.arange(count, dtype=np.int32) % num_classes


def draw(run: Run, labels: np.ndarray, seed: int) -> Samples:
    """One sample for each label. Sample i starts from noise that depends on (seed, i) alone.

    Raises UserError for labels outside the data's classes or a config without a generator.
    """
    if run.flow is None:
        raise UserError("This config has no stage that generates; add a 'flow' stage.")
    name, method = run.flow
    if len(labels) == 0:
        raise UserError("No samples were asked for; --num must be at least 1.")
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed {seed} must be 0..{2**32 - 1}.")
    if labels.min() < 0 or labels.max() > method.num_classes:
        raise UserError(
            f"Labels must be 0..{method.num_classes - 1}, or {method.num_classes} for no class."
        )
    labels = labels.astype(np.int32)
    sampler, key = method.sampler, jax.random.key(seed)

    @partial(jax.jit, compiler_options=transformer_options())
    def generate(params, indices, labels, scale):
        noise = sample_noise(key, indices, method.tokenizer.latent_shape)
        latents, radius = method.generate(params, noise, labels, scale, sampler)
        return latents, jnp.broadcast_to(radius[None], (len(labels), len(radius)))

    decode = jax.jit(method.decode)
    scale = jnp.float32(sampler.guidance.scale)

    def sample_batch(indices, labels):
        latents, radii = generate(run.artifacts, indices, labels, scale)
        out = {"latents": latents, "radii": radii}
        return out | ({"images": decode(run.artifacts, latents)} if method.has_images else {})

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
    return Samples(
        out.get("images"), out["latents"], labels, out["radii"].mean(0), nfe(sampler), sampler
    )
