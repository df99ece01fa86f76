"""What a stage of HAE is looked at by: whether the stem keeps the meaning of the ViT's tokens, and
what the decoder bears (arXiv 2601.22904, section 4; docs/systems/hae.md#probes)."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from sphere_jax.common.shapes import AnyArray
from sphere_jax.data.source import Source
from sphere_jax.evaluation.linear_probe import linear_probe
from sphere_jax.evaluation.page import Block, Picture
from sphere_jax.evaluation.reconstruction import mean_psnr
from sphere_jax.geometry import sphere
from sphere_jax.methods.base import Arrays, MapOver, Outcome, Params
from sphere_jax.methods.on_latents import spaced_subset
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.tokenizers.hae import HAE

PROBED = 10_000  # training images of the linear probe, at most
DECODED = 256  # held-out images of decoding curves, at most
SHOWN = 8
MULTIPLES = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.5)  # of the mean norm
SIGMAS = (0.05, 0.1, 0.2)  # of noise on unit directions of 1024 channels
CHANNELS = 1024  # of HAE

Latents = Float32[AnyArray, "images h w d"]


def diagnose(
    tokenizer: HAE, params: Params, train: Source, heldout: Source, map_over: MapOver
) -> Outcome:
    """Metrics and arrays of both encoders and the decoder, with `params` by the tokenizer's parts.
    Without the ViT's own patch embedding there is no teacher."""
    encoders = {"student": tokenizer.student}
    if "patch_embedding" in params["vit"]:
        encoders["teacher"] = tokenizer.teacher
    train, few = spaced_subset(train, PROBED), spaced_subset(heldout, DECODED)
    metrics, arrays, tokens = {}, {}, {}
    for name, encoder in encoders.items():

        def summarise(p, x, encoder=encoder):
            found = encoder(p, to_float(x))
            return jnp.concatenate([found.cls, found.patches.mean(1)], axis=-1)

        def encode(p, x, encoder=encoder):
            return tokenizer.as_latents(encoder(p, to_float(x)))

        if len(np.unique(train.labels)) > 1:
            known = map_over(summarise, params, train.arrays["images"])
            new = map_over(summarise, params, heldout.arrays["images"])
            scores = linear_probe(known, train.labels, new, heldout.labels)
            metrics |= {f"probe_{name}_{key}": value for key, value in scores.items()}
        tokens[name] = map_over(encode, params, few.arrays["images"])
        norms = np.linalg.norm(tokens[name], axis=-1).ravel()
        arrays[f"norms_{name}"] = norms[:: max(len(norms) // 20_000, 1)].astype(np.float32)
        metrics[f"norm_{name}"] = float(norms.mean())
    if "teacher" in tokens:
        a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in tokens.values())
        metrics["cosine_of_both"] = float(np.mean(np.sum(a * b, -1)))
        some, side = slice(0, SHOWN), tokenizer.image_shape[0]
        maps = pca_maps({name: x[some] for name, x in tokens.items()}, side)
        images = np.asarray(few.arrays["images"][some])
        arrays |= {"pca_images": images, **{f"pca_{n}": m for n, m in maps.items()}}
    return _decoding(tokenizer, params, few, tokens["student"], map_over, metrics, arrays)


def _decoding(tokenizer, params, few, latents, map_over, metrics, arrays) -> Outcome:
    """PSNR and pictures of latents with every token at one norm, and of turned directions."""

    def decode_fixed(p, z, norm):
        fixed = sphere.normalize(z, norm.reshape(-1, 1, 1, 1))
        return to_uint8(tokenizer.decode(p, fixed))

    def decode_turned(p, z, noise, sigma):
        turned = sphere.normalize(z) + sigma.reshape(-1, 1, 1, 1) * noise
        turned = sphere.normalize(turned, sphere.safe_norm(z)[..., None])
        return to_uint8(tokenizer.decode(p, turned))

    images, count = few.arrays["images"], len(latents)
    mean = metrics["norm_student"]
    curve = []
    for multiple in MULTIPLES:
        norms = np.full(count, multiple * mean, np.float32)
        decoded = map_over(decode_fixed, params, latents, norms)
        curve.append(mean_psnr(decoded, images))
        arrays[f"fixed_{multiple:g}"] = decoded[:SHOWN]
    arrays["fixed_norms"] = np.float32(MULTIPLES) * np.float32(mean)
    arrays["fixed_psnr"] = np.float32(curve)
    noise = np.random.default_rng(0).standard_normal(latents.shape, dtype=np.float32)
    for sigma in SIGMAS:  # turns these channels as far as it turns HAE's
        own = sigma * math.sqrt((CHANNELS - 1) / (latents.shape[-1] - 1))
        decoded = map_over(decode_turned, params, latents, noise, np.full(count, own, np.float32))
        metrics[f"psnr_direction_noise_{sigma:g}"] = mean_psnr(decoded, images)
        arrays[f"turned_{sigma:g}"] = decoded[:SHOWN]
    return Outcome(metrics=metrics, arrays=arrays)


def pca_maps(
    tokens: dict[str, Latents], side: int
) -> dict[str, UInt8[np.ndarray, "images side side 3"]]:
    """The three principal components of the last one's unit tokens, as colours, for each: maps
    (N, h, w, d) to uint8 (N, side, side, 3)."""
    units = {name: x / np.linalg.norm(x, axis=-1, keepdims=True) for name, x in tokens.items()}
    flat = list(units.values())[-1].reshape(-1, next(iter(tokens.values())).shape[-1])
    mean = flat.mean(0)
    components = np.linalg.svd(flat - mean, full_matrices=False)[2][:3].T
    low, high = np.percentile((flat - mean) @ components, (2, 98), axis=0)

    def colours(x):
        scaled = ((x - mean) @ components - low) / np.maximum(high - low, 1e-6)
        small = np.uint8(255 * np.clip(scaled, 0, 1))
        times = side // small.shape[1]
        return small.repeat(times, 1).repeat(times, 2)

    return {name: colours(x) for name, x in units.items()}


def show(arrays: Arrays) -> list[Block]:
    """What the report shows of `diagnose`."""
    from sphere_jax.evaluation import figures

    norms = {n.removeprefix("norms_"): x for n, x in arrays.items() if n.startswith("norms_")}
    mean = norms["student"].mean()
    histogram = figures.norm_histogram({name: x / mean for name, x in norms.items()})
    blocks = [Picture(histogram, "Token norms over the student's mean.")]
    if "pca_images" in arrays:
        rows = {"images": arrays["pca_images"]} | {name: arrays[f"pca_{name}"] for name in norms}
        caption = "Three principal components of the teacher's tokens, as colours."
        blocks.append(Picture(figures.labelled_rows(rows), caption))
    fixed = {f"norm x {n.removeprefix('fixed_')}": x for n, x in arrays.items()
             if n.startswith("fixed_") and x.ndim == 4}  # fmt: skip
    curve = figures.curve(
        arrays["fixed_norms"], arrays["fixed_psnr"], "norm of every token", "PSNR, dB"
    )
    blocks += [
        Picture(figures.labelled_rows(fixed), "Every token at one norm, over the mean norm."),
        Picture(curve, "Reconstruction with every token at one norm."),
    ]
    turned = {f"noise {n.removeprefix('turned_')}": x for n, x in arrays.items()
              if n.startswith("turned_")}  # fmt: skip
    caption = "Noise on directions, as large an angle as that noise a channel turns 1024 channels."
    return [*blocks, Picture(figures.labelled_rows(turned), caption)]
