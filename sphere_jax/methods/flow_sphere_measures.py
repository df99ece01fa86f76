"""What a finished flow-sphere stage is measured by: statistics of the batch norm, held-out
reconstruction, coverage of the sphere (docs/systems/flow_sphere.md#networks)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from sphere_jax.data.source import Source
from sphere_jax.evaluation.coverage import coverage
from sphere_jax.evaluation.page import Block, Picture
from sphere_jax.evaluation.reconstruction import mean_psnr
from sphere_jax.methods.base import Arrays, MapOver, Outcome, Params
from sphere_jax.methods.flow_sphere_sampling import FlowSphereSampling
from sphere_jax.methods.on_latents import spaced_subset
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling import sample_keys
from sphere_jax.tokenizers.flow_sphere import FlowSphere

NORM_IMAGES = 10_000  # training images that the batch norm's statistics are measured on


def norm_statistics(
    tokenizer: FlowSphere, params: Params, train: Source, map_over: MapOver
) -> dict[str, Float32[np.ndarray, "height width channels"]]:
    """Mean and variance (h, w, d) of latents before the batch norm, over training images."""
    shape = tokenizer.latent_shape
    if not tokenizer.options.normalize:
        return {"mean": np.zeros(shape, np.float32), "variance": np.ones(shape, np.float32)}

    def encode(p, x):
        return tokenizer.before_norm(p, to_float(x))

    found = map_over(encode, params, spaced_subset(train, NORM_IMAGES).arrays["images"])
    found = found.astype(np.float64)
    return {"mean": np.float32(found.mean(0)), "variance": np.float32(found.var(0))}


def measured(
    method: FlowSphereSampling, params: Params, heldout: Source, map_over: MapOver
) -> Outcome:
    """Metrics of held-out images, and images of reconstructions, decodes and their refinements."""
    heldout = spaced_subset(heldout).arrays
    images = heldout["images"]

    def encode(p, x):
        return method.tokenizer.encode(p, to_float(x))

    def decode(p, v):
        return to_uint8(method.tokenizer.decode(p, v))

    latents = map_over(encode, params, images)
    decoded = map_over(decode, params, latents)
    some = np.linspace(0, len(images) - 1, 10).astype(int)

    def refined(p, v, indices):
        keys = sample_keys(jax.random.key(0), indices)
        labels = jnp.full(len(v), method.num_classes, jnp.int32)
        return to_uint8(
            method.refine(p, keys, labels, 1.0, method.sampler.with_scale(1.0), None, v)
        )

    def samples(p, indices, labels):
        keys = sample_keys(jax.random.key(0), indices)
        pair = method.rough_and_refined(p, keys, labels, method.sampler.scale, method.sampler)
        return tuple(to_uint8(x) for x in pair)

    indices = np.arange(10, dtype=np.uint32)
    rough, refinements = map_over(
        samples, params, indices, indices.astype(np.int32) % method.num_classes
    )
    return Outcome(
        metrics={"reconstruction_psnr": mean_psnr(decoded, images)}
        | coverage(latents, heldout["labels"]),
        arrays={
            "original": images[some],
            "reconstruction": decoded[some],
            "refined_reconstruction": map_over(refined, params, latents[some], indices),
            "decode": rough,
            "refined": refinements,
        },
    )


def pictures(arrays: Arrays) -> list[Block]:
    """Decodes above their refinements, and held-out reconstructions."""
    from sphere_jax.evaluation import figures

    drawn = {name: arrays[name] for name in ("decode", "refined")}
    held = ("original", "reconstruction", "refined_reconstruction")
    rows = {name.replace("_", " "): arrays[name] for name in held}
    return [
        Picture(figures.labelled_rows(drawn), "Decodes of random points, and their refinements."),
        Picture(figures.labelled_rows(rows), "Held-out images and reconstructions."),
    ]
