"""What a finished Sphere Encoder is measured by: held-out reconstruction, coverage of the sphere,
and how much noise on latents its decoder bears (docs/systems/sphere_encoder.md#purpose)."""

import math
from collections.abc import Callable

import numpy as np

from sphere_jax.common.shapes import Labels, Latents
from sphere_jax.data.source import Source
from sphere_jax.evaluation.coverage import ANGLES, coverage
from sphere_jax.evaluation.page import Block, Picture
from sphere_jax.evaluation.reconstruction import mean_psnr
from sphere_jax.methods.base import Arrays, MapOver, Outcome, Params, Pictures
from sphere_jax.methods.on_latents import spaced_subset
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.tokenizers.sphere_encoder import SphereEncoder


def measured(
    tokenizer: SphereEncoder,
    noised: Callable[..., Latents],
    params: Params,
    heldout: Source,
    map_over: MapOver,
) -> Outcome:
    """Metrics of held-out images, some reconstructions, and the curve of `robustness`.

    noised(v, e, sigma): latents with noise, as the decoder learns them.
    """
    arrays = spaced_subset(heldout).arrays
    images, labels = arrays["images"], arrays["labels"]

    def reconstruct(p, x):  # null label, no noise: as published
        return to_uint8(tokenizer.decode(p, tokenizer.encode(p, to_float(x))))

    def encode(p, x, y):
        return tokenizer.encode(p, to_float(x), y)

    decoded = map_over(reconstruct, params, images)
    latents = map_over(encode, params, images, labels)
    some = np.linspace(0, len(images) - 1, 10).astype(int)

    def decode_noised(p, v, e, sigma, y):
        return to_uint8(tokenizer.decode(p, noised(v, e, sigma), y))

    curve = robustness(decode_noised, params, latents, labels, images, map_over)
    return Outcome(
        metrics={"reconstruction_psnr": mean_psnr(decoded, images)} | coverage(latents, labels),
        arrays={"original": images[some], "reconstruction": decoded[some], **curve},
    )


def robustness(
    decode: Callable[..., Pictures],
    params: Params,
    latents: Latents,
    labels: Labels,
    images: Pictures,
    map_over: MapOver,
    count: int = 256,
) -> Arrays:
    """PSNR of `decode(params, v, e, sigma, labels)` against the angle of the noise, in degrees."""
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    v, y, x = latents[rows], labels[rows], images[rows]
    e = np.random.default_rng(0).standard_normal(v.shape, dtype=np.float32)

    def at(angle):
        sigma = np.full(len(v), math.tan(math.radians(angle)), np.float32)
        return mean_psnr(map_over(decode, params, v, e, sigma, y), x)

    found = [at(angle) for angle in ANGLES]
    return {"noise_angle": np.array(ANGLES, np.float32), "noise_psnr": np.array(found, np.float32)}


def pictures(arrays: Arrays) -> list[Block]:
    """Held-out reconstructions, and PSNR under noise."""
    from sphere_jax.evaluation import figures

    rows = {name: arrays[name] for name in ("original", "reconstruction")}
    curve = figures.curve(
        arrays["noise_angle"], arrays["noise_psnr"], "angle of noise, degrees", "PSNR, dB"
    )
    return [
        Picture(figures.labelled_rows(rows), "Held-out images and reconstructions."),
        Picture(curve, "Decoding held-out latents that noise has turned."),
    ]
