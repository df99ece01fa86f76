"""Editing images with a trained spherical autoencoder (arXiv 2602.15030;
docs/systems/sphere_encoder.md#editing, docs/systems/flow_sphere.md#editing).

Every edit is a start (an image, a stitched image, a point between two latents), a label and a few
rounds of encoding, re-noising and decoding. Images are uint8 (N, H, W, C); what comes back are the
named rows of a picture.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Config
from sphere_jax.geometry import sphere
from sphere_jax.methods.base import Generator
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.runs.run import Run
from sphere_jax.sampling import FewSteps, first_noise, sample_keys

STITCHES = ("vertical", "horizontal", "diagonal")
PATHS = ("lerp", "slerp")

Rows = dict[str, np.ndarray]


def check_edits(config: Config, workdir: Path, action: str) -> None:
    """Raises UserError unless a stage of the run in `workdir` has a method with that edit."""
    methods = [config.method(name) for name in config.stages]
    able = [method for method in methods if method.edits]
    if not able:
        raise UserError(
            f"{workdir} has no stage whose method edits images; editing needs a run of Sphere "
            "Encoder or flow-sphere, say configs/mnist_sphere_encoder.py."
        )
    if action not in able[0].edits:
        raise UserError(
            f"{able[0].title(config)} has no '{action}'; it has {', '.join(able[0].edits)}."
        )


def defaults(config: Config, action: str) -> dict[str, Any]:
    """The sampler options of an edit, where they differ from the run's."""
    return dict(next(e for n in config.stages if (e := config.method(n).edits))[action] or {})


def editor(run: Run) -> Generator:
    """The method of a run that edits images."""
    return next(run.methods[n] for n in run.config.stages if run.config.method(n).edits)


def reconstruct(run: Run, images: np.ndarray, seed: int) -> Rows:
    """`D(f(E(x)))` with the null label: the autoencoder alone; then refined, where it refines."""
    method = editor(run)

    def decoded(params, x):
        latents = method.tokenizer.encode(params, to_float(x))
        return to_uint8(method.tokenizer.decode(params, latents))

    rows = {"original": images, "reconstruction": run.map_over(decoded, run.artifacts, images)}
    if method.edits["reconstruct"] is None:
        return rows
    latents = run.map_over(_encode(method), run.artifacts, images)
    null = np.full(len(images), run.config.data.num_classes, np.int32)
    return rows | {"refined": refine(run, method.sampler, seed, null, latents=latents)}


def interpolate(
    run: Run, images: np.ndarray | None, labels: list[int], columns: int, path: str, seed: int
) -> Rows:
    """`columns` pictures from one end to another, or a square of them between four corners.

    The ends are images, or random points of the sphere (four if there are four labels, else two).
    With labels, one for each end, the class embeddings are interpolated too.

    Raises:
      UserError: another number of images or labels.
    """
    if images is not None and len(images) not in (2, 4):
        raise UserError(f"interpolate goes between 2 or 4 images, not {len(images)}.")
    count = len(images) if images is not None else 4 if len(labels) == 4 else 2
    if labels and len(labels) != count:
        raise UserError(f"interpolate needs {count} labels, one for each end, not {len(labels)}.")
    method, classes = editor(run), run.config.data.num_classes
    if images is not None:
        ends = run.map_over(_encode(method), run.artifacts, images)
    else:
        keys = sample_keys(jax.random.key(seed), np.arange(count, dtype=np.uint32))
        ends = np.asarray(sphere.spherify(first_noise(keys, method.tokenizer.latent_shape)))
    if count == 2:
        points = between(ends[0], ends[1], columns, path)
        weights = np.linspace([1.0, 0.0], [0.0, 1.0], columns)
    else:
        points, weights = among(ends, columns), bilinear(columns)
    rows = np.array(labels or [classes] * count)
    mixtures = (weights @ np.eye(classes + 1)[rows]).astype(np.float32)
    drawn = refine(run, method.sampler, seed, mixtures, latents=points, alike=True)
    if count == 2:
        ends = " to ".join(map(run.classes.shown, labels))
        return {path + (f", {ends}" if labels else ""): drawn}
    return {f"row {i + 1}": row for i, row in enumerate(np.split(drawn, columns))}


def crossover(run: Run, images: np.ndarray, mode: str, swap: bool, seed: int) -> Rows:
    """Two images stitched, then refined with the null label: shared and fresh noise, fixed and
    decreasing strength. Raises UserError for another number of images."""
    if len(images) != 2:
        raise UserError(f"crossover needs 2 images, not {len(images)}.")
    mixed = stitch(images[0], images[1], mode, swap)[None]
    rows = {"first": images[:1], "second": images[1:], "stitched": mixed}
    null = np.array([run.config.data.num_classes], np.int32)
    for share in (True, False):
        for schedule in ("fixed", "decreasing"):
            sampler = dataclasses.replace(editor(run).sampler, share_noise=share, schedule=schedule)
            name = f"{'shared' if share else 'fresh'} noise, {schedule}"
            rows[name] = refine(run, sampler, seed, null, images=mixed)
    return rows


def manipulate(
    run: Run, images: np.ndarray, labels: list[int], seed: int, direction: np.ndarray | None = None
) -> Rows:
    """Every image turned into every class. Raises UserError if no class is named."""
    if not labels:
        raise UserError("manipulate needs labels, the classes to turn the images into.")
    if not editor(run).conditional:
        raise UserError(
            f"manipulate turns images into classes, and the networks of {run.workdir} take none; "
            "train one with config.tokenizer.conditional=True."
        )
    rows = {"original": images}
    for label in labels:
        same = np.full(len(images), label, np.int32)
        name = run.classes.shown(label)
        rows[name if run.classes.named else f"class {name}"] = refine(
            run, editor(run).sampler, seed, same, images=images, direction=direction
        )
    return rows


def refine(
    run,
    sampler: FewSteps,
    seed: int,
    labels,
    images=None,
    latents=None,
    direction=None,
    alike=False,
):
    """`sampler.steps` rounds from `images`, or that many decodes from `latents`.

    labels: (N,) int32, `num_classes` for the null label, or mixtures (N, num_classes + 1).
    direction: one image (1, H, W, C) whose latent takes the place of the noise.
    alike: all rows draw the same noise, so that they differ in nothing but their starts.
    """
    method, key = editor(run), jax.random.key(seed)
    start = {"images": images} if images is not None else {"latents": latents}
    ((kind, given),) = start.items()
    noise = None
    if direction is not None:
        noise = run.map_over(_encode(method), run.artifacts, direction)

    def refined(params, given, labels, indices):
        given = to_float(given) if kind == "images" else given
        keys = sample_keys(key, indices)
        e = None if noise is None else jnp.broadcast_to(noise, (len(labels), *noise.shape[1:]))
        x = method.refine(
            params, keys, labels, sampler.scale, sampler, **{kind: given}, noise=e
        )  # fmt: skip
        return to_uint8(x)

    indices = np.zeros(len(given)) if alike else np.arange(len(given))
    indices = indices.astype(np.uint32)
    return run.map_over(refined, run.artifacts, given, np.asarray(labels), indices)


def _encode(method):
    def encode(params, x):
        return method.tokenizer.encode(params, to_float(x))

    return encode


def between(a: np.ndarray, b: np.ndarray, columns: int, path: str) -> np.ndarray:
    """`columns` points from a to b, latents (h, w, d), both ends included.

    "lerp" is the chord put back on the sphere: the great circle at uneven speed. "slerp" turns
    every token from its direction in a to that in b, as the released code does, then `f`.

    Raises:
      ValueError: another path.
    """
    if path not in PATHS:
        raise ValueError(f"path is one of {', '.join(PATHS)}, not {path!r}")
    t = np.linspace(0.0, 1.0, columns, dtype=np.float32)
    if path == "lerp":
        t = t.reshape(-1, 1, 1, 1)
        return np.asarray(sphere.spherify((1.0 - t) * a[None] + t * b[None]))
    u, w = (jnp.broadcast_to(sphere.normalize(x), (columns, *x.shape)) for x in (a, b))
    t = jnp.broadcast_to(t.reshape(-1, 1, 1), u.shape[:-1])
    return np.asarray(sphere.spherify(sphere.slerp(u, w, t)))


def among(four: np.ndarray, columns: int) -> np.ndarray:
    """A square of `columns` by `columns` points, in reading order: bilinear between the corners
    top left, top right, bottom left, bottom right (4, h, w, d), then put on the sphere."""
    points = jnp.tensordot(bilinear(columns), four, 1, precision="highest")
    return np.asarray(sphere.spherify(points))


def bilinear(columns: int) -> np.ndarray:
    """(columns^2, 4) weights of the four corners, corners aligned."""
    t = np.linspace(0.0, 1.0, columns, dtype=np.float32)
    down, across = (x.ravel() for x in np.meshgrid(t, t, indexing="ij"))
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    return np.stack(weights, axis=1)


def stitch(a: np.ndarray, b: np.ndarray, mode: str, swap: bool = False) -> np.ndarray:
    """One image (H, W, C) of two: a to the left of b ("vertical" seam), above it ("horizontal"), or
    above the diagonal; `swap` puts b there.

    Raises:
      ValueError: another mode.
    """
    height, width = a.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    masks = {
        "vertical": columns < width // 2,
        "horizontal": rows < height // 2,
        "diagonal": columns * height >= rows * width,
    }
    if mode not in masks:
        raise ValueError(f"mode is one of {', '.join(STITCHES)}, not {mode!r}")
    mask = masks[mode] ^ swap
    return np.where(mask[..., None], a, b)
