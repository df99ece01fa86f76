"""The page and the picture of `benchmarks.tokenizers`."""

import os
import platform
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from sphere_jax.evaluation.figures import labelled_rows

NAMES = {"taesd": "TAESD", "taef1": "TAEF1", "taef2": "TAEF2"}
PLAIN, MEAN, ROOT = "as encoded", "mean norm", "sqrt(d)"  # radii of the tokens
SHOWN, CROP = (3, 48, 105, 225), 84  # flowers of the picture, and the side of what is shown


class Shell(NamedTuple):
    """Where the tokens of a data set lie."""

    d: int
    norm: float  # mean
    cv: float  # standard deviation of the norm over its mean
    means: tuple[float, float]  # least and largest mean of a channel
    stds: tuple[float, float]


class Measured(NamedTuple):
    """One tokenizer on one data set."""

    shell: Shell
    scores: dict[str, dict[str, float]]  # PLAIN, MEAN, ROOT -> metric -> mean over images
    images: dict[str, np.ndarray]  # the same -> uint8 reconstructions


def picture(originals: np.ndarray, kinds: dict[str, Measured]) -> bytes:
    """PNG of 256 colours: the middle of a few images, of their reconstructions, and of those with
    every token at the mean norm."""
    side = originals.shape[1]
    middle = slice(max(side - CROP, 0) // 2, (side + CROP) // 2)
    rows = {"original": originals}
    for kind, found in kinds.items():
        rows[NAMES[kind]] = found.images[PLAIN]
        rows[f"{NAMES[kind]} sphere"] = found.images[MEAN]
    shown = [i for i in SHOWN if i < len(originals)] or [0]
    cut = {name: images[shown][:, middle, middle] for name, images in rows.items()}
    small = BytesIO()
    whole = Image.open(BytesIO(labelled_rows(cut)))
    whole.quantize(256, Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


PAGE = """# Tiny autoencoders as tokenizers, and what one radius costs

    {command}

writes this page. TAESD, TAEF1 and TAEF2 encode 8x8 pixels as a token of d channels; they match
their originals within 1e-4 (`tests/models/test_tiny_vae.py`). Test images are decoded from their
tokens *as encoded*, and from the same tokens projected on one sphere (`sphere.normalize`) whose
radius is the *mean norm* of all tokens of the data set, or *sqrt(d)*. The decoders are the
published ones; they were not trained on projected tokens.

With `--picture=F.png` the command also draws a few flowers, their reconstructions, and those from
one radius; the photographs may not be published here.

**Protocol.**
{images}.
Inputs are uint8, scaled by `x / 127.5 - 1`; decoded images are clipped to [-1, 1] and rounded to
uint8 before measuring. PSNR and SSIM are those of `evaluation/reconstruction.py` (SSIM: Gaussian
window of 11x11, each channel, full resolution), LPIPS is v0.1 with AlexNet; each is the mean over
images of one number per image. No seed: nothing is random. float32 on {hardware}.

| images | tokenizer | radius | PSNR, dB ↑ | SSIM ↑ | LPIPS ↓ |
| --- | --- | --- | --- | --- | --- |
{scores}

Tokens of all positions of all images; CV is the standard deviation over the mean:

| images | tokenizer | d | mean norm | / sqrt(d) | CV of norm | channel means | their deviations |
| --- | --- | --- | --- | --- | --- | --- | --- |
{shells}

## Reading

{reading}
- For comparison: the published mean norm of the large FLUX.2 VAE is 0.94 sqrt(d) with a CV of 0.20
  ([tensors](systems/spherical_flow.md#tensors)), perhaps with normalised channels, unlike here.
- CIFAR-10 is enlarged from 32 pixels (bicubic), from a copy stored as JPEG: compare its rows with
  one another, not with other pages.
"""


def page(command: str, sets: dict, counts: dict[str, int], measured: dict) -> str:
    """`sets` are `SETS` as they were used, `counts` the images of each, `measured` is
    data set -> kind -> `Measured`."""
    found = [(name, kind, m) for name, kinds in measured.items() for kind, m in kinds.items()]
    scores = [
        f"| {name} | {NAMES[kind]} | {radius} "
        f"| {s['psnr']:.2f} | {s['ssim']:.3f} | {s['lpips']:.3f} |"
        for name, kind, m in found
        for radius, s in m.scores.items()
    ]
    shells = [
        f"| {name} | {NAMES[kind]} | {s.d} | {s.norm:.2f} | {s.norm / s.d**0.5:.3f} | {s.cv:.3f} "
        f"| {s.means[0]:.2f} to {s.means[1]:.2f} | {s.stds[0]:.2f} to {s.stds[1]:.2f} |"
        for name, kind, (s, *_) in found
    ]
    images = [
        f"{name}: the first {counts[name]:,} test images of `{file}` at {side}x{side}"
        for name, (file, side, _) in sets.items()
    ]
    return PAGE.format(
        command=command,
        images=";\n".join(images),
        hardware=f"{os.cpu_count()} {platform.machine()} cores, jax {jax.__version__} on "
        f"{jax.default_backend()}",
        scores="\n".join(scores),
        shells="\n".join(shells),
        reading="\n".join(f"- {sentence}" for sentence in reading(measured)),
    )


def reading(measured: dict[str, dict[str, Measured]]) -> Iterator[str]:
    """Sentences with the numbers."""

    def listed(form: str, number: Callable[[Measured], float]) -> str:
        sets = (
            f"{name} " + ", ".join(f"{NAMES[k]} {number(m):{form}}" for k, m in kinds.items())
            for name, kinds in measured.items()
        )
        return ";\n  ".join(sets)

    def loss(m: Measured) -> float:
        return m.scores[PLAIN]["psnr"] - m.scores[MEAN]["psnr"]

    yield f"As encoded, PSNR in dB:\n  {listed('.1f', lambda m: m.scores[PLAIN]['psnr'])}."
    yield f"Projecting to the mean norm costs, in dB:\n  {listed('.1f', loss)}."
    further = listed("+.1f", lambda m: m.scores[ROOT]["psnr"] - m.scores[MEAN]["psnr"])
    yield f"sqrt(d) instead of it changes that PSNR by:\n  {further}."
    ordered = all(
        sorted(kinds, key=lambda k: loss(kinds[k]))
        == sorted(kinds, key=lambda k: kinds[k].shell.cv)
        for kinds in measured.values()
    )
    yield (
        "The tokenizer with less varying norms loses less at the mean norm, on both sets."
        if ordered
        else "A smaller CV of the norm does not always go with a smaller loss at the mean norm."
    )
