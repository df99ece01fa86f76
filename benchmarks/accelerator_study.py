"""Straight paths against geodesics, in ten minutes of one GPU: CIFAR-10 at 64 pixels.

    python -m benchmarks.accelerator_study --images=cifar10_jpeg.npz \\
        --tokenizer=taef2.safetensors --features=efficientnet_lite0.safetensors --out=study

It encodes the images on the device, trains one flow on linear paths and one on spheres for equal
steps, and finetunes a decoder for each kind of latents: that of raw latents is the control for what
finetuning does by itself. Samples of both flows in both decoders are scored by the Fréchet distance
of EfficientNet-Lite0's features to the held-out images. Packages as for `benchmarks.accelerator`;
Pillow too where the file holds JPEGs.

--images: an .npz of data.source=npz. --tokenizer: weights of a tiny autoencoder, as published,
converted, or an .npz of its tensors. --features: likewise; without it nothing is scored.

The folder --out gets study.json (written again after every part), curves.png (velocity error of
each flow, linear first), samples.png (a row a class: eight samples of each flow in its finetuned
decoder) and NAME-00.npz ...: averaged weights in bfloat16, each file under 16 MB
(`benchmarks/weight_parts.py` reads them); --keep chooses whose.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import bare, pictures, smoke, study_scores
from benchmarks.accelerator_images import random_tree
from benchmarks.study_parts import ARMS, Study
from benchmarks.timed import reason, stop_at
from benchmarks.weight_parts import write_parts
from sphere_jax.cli import run_command
from sphere_jax.common.files import write_json
from sphere_jax.nn.functional import num_parameters
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.tensors import named_leaves

DECODERS, SCORES = 0.12, 0.22  # shares of the time for finetuning, and for sampling and scoring
CUT = 20  # seconds after its time the process ends itself
SMOKE = [
    "--minutes=60",
    "--side=16",
    "--native=8",
    "--width=32",
    "--depth=1",
    "--heads=2",
    "--classes=2",
]
SMOKE += ["--kind=taesd", "--batch=4", "--decoder_batch=2", "--most_steps=2", "--block=1"]
SMOKE += ["--samples=6", "--sampler_steps=2", "--draw=6"]


def main(argv: list[str]) -> None:
    args = smoke.parse(_flags(), argv, _smoke)
    start = time.monotonic()
    end = start + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "study.json"
    found: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "stand_ins": bare.MISSING,
        "options": {key: str(value) for key, value in vars(args).items()},
        "seconds": {},
    }
    with stop_at(end + CUT, found, file):
        _work(args, end, found, file)
    print(f"\n{time.monotonic() - start:.0f} s; {args.out}")


def _work(args: argparse.Namespace, end: float, found: dict[str, Any], file: Path) -> None:
    """Part by part, until `end` by `time.monotonic`; `found` is written to the file meanwhile."""

    def part(name: str, work, *arguments, keep=lambda result: {}):
        """What `work` returns; `keep` of it is in the file from then on."""
        found["running"], begun = name, time.monotonic()
        print(f"\n== {name}", flush=True)
        try:
            result = work(*arguments)
            found.update(keep(result))
        except Exception as error:
            found["unfinished"] = {name: reason(error)}
            raise
        finally:
            found["seconds"][name] = round(time.monotonic() - begun, 1)
            write_json(file, found)
        return result

    study = part("encode", Study.encoded, args, keep=lambda study: study.about)
    print(f"  {study.about}")
    left = end - time.monotonic()
    print(f"  {left:.0f} s are left: {DECODERS:.0%} for decoders, {SCORES:.0%} for scores")
    decoders = part(
        "decoders", study.train_decoders, DECODERS * left, keep=lambda it: {"decoders": it.report}
    )
    flows = part(
        "flows", study.train_flows, end - SCORES * left, keep=lambda it: {"flows": it.report}
    )
    found["parameters"] = num_parameters(flows.weights[ARMS[0].name])
    print(
        f"  {found['parameters']:,} parameters, {flows.steps:,} steps of each flow; "
        f"not finite and left out: {flows.report['steps_left_out']}"
    )
    part("weights", _write_weights, args, flows.weights, decoders.weights, found)
    pictures.write_png(args.out / "curves.png", pictures.curves(flows.curves))
    samples = part("samples", study_scores.samples, study, flows.weights)
    shown = study_scores.shown(study, samples, decoders.weights)
    pictures.write_png(args.out / "samples.png", _table(shown, args.classes))
    scores = found["frechet_distance"] = {}
    part("scores", study_scores.scores, study, samples, decoders.weights, end, scores)
    found.pop("running")
    write_json(file, found)


def _flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--images", type=Path, required=True)
    flags.add_argument("--tokenizer", type=Path, required=True)
    flags.add_argument("--features", type=Path, help="weights of EfficientNet-Lite0")
    flags.add_argument("--out", type=Path, default=Path("accelerator_study"))
    flags.add_argument("--minutes", type=float, default=9.0, help="of everything (default 9)")
    flags.add_argument("--kind", default="taef2", help="of tiny autoencoder (default taef2)")
    flags.add_argument("--native", type=int, default=32, help="pixels of the file's images")
    flags.add_argument("--side", type=int, default=64, help="pixels they are resized to")
    flags.add_argument("--classes", type=int, default=10)
    flags.add_argument("--width", type=int, default=384)
    flags.add_argument("--depth", type=int, default=12)
    flags.add_argument("--heads", type=int, default=6)
    flags.add_argument("--batch", type=int, default=512, help="of the flows")
    flags.add_argument("--decoder_batch", type=int, default=64)
    flags.add_argument("--rate", type=float, default=4e-4, help="learning rate of the flows")
    flags.add_argument("--decoder_rate", type=float, default=3e-4)
    flags.add_argument("--ema", type=float, default=0.999, help="decay of the average, a step")
    flags.add_argument("--block", type=int, default=50, help="steps of an arm before the next's")
    flags.add_argument("--most_steps", type=int, default=1_000_000)
    flags.add_argument("--samples", type=int, default=10_000)
    flags.add_argument("--sampler_steps", type=int, default=50, help="of Euler")
    flags.add_argument("--draw", type=int, default=500, help="images at a time, all but training")
    flags.add_argument("--seed", type=int, default=0)
    names = [arm.name for arm in ARMS]
    flags.add_argument("--keep", nargs="*", default=names, choices=names, help="written weights")
    return flags


def _smoke() -> list[str]:
    """Random images and weights."""
    folder = smoke.folder() / "study"
    folder.mkdir(exist_ok=True)
    images = smoke.random_images(12, 8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(12) % 2)
    for name in ("taesd", "efficientnet_lite0"):
        params = random_tree(catalogue()[name].network().shapes)
        np.savez(folder / f"{name}.npz", **named_leaves(params))
    return [
        *SMOKE,
        f"--images={folder / 'images.npz'}",
        f"--tokenizer={folder / 'taesd.npz'}",
        f"--features={folder / 'efficientnet_lite0.npz'}",
        f"--out={folder / 'out'}",
    ]


def _write_weights(args, flows: dict, decoders: dict, found: dict) -> None:
    trees = {name: tree for name, tree in flows.items() if name in args.keep}
    trees |= {f"decoder-{name}": tree for name, tree in decoders.items() if name in args.keep}
    found["weights"] = {
        name: [file.name for file in write_parts(args.out, name, jax.device_get(tree))]
        for name, tree in trees.items()
    }
    print(f"  {found['weights']}")


def _table(shown: dict[str, np.ndarray], classes: int) -> np.ndarray:
    """A row a class, the flows side by side."""
    sides = [pictures.grid(images, len(images) // classes) for images in shown.values()]
    gap = np.full((len(sides[0]), 8, 3), 255, np.uint8)
    return np.concatenate([part for side in sides for part in (side, gap)][:-1], axis=1)


if __name__ == "__main__":
    run_command(main)
