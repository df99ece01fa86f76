"""How much a score moves by what is not the generator: counts, resizing, rounding, compression.

    python -m benchmarks.score_choices --images=photos.npz --pretrained=weights/lite0.safetensors

Both sides are real: two random halves of the same images, so that all that is measured comes from
the choice. The network is one whose weights a package brings; distances of Inception move likewise.
"""

from io import BytesIO
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import smoke
from sphere_jax.cli import Parser, run_command, user_path
from sphere_jax.evaluation import evaluate
from sphere_jax.evaluation.fitting import Fitting
from sphere_jax.evaluation.sides.open_side import open_side
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import write_weights

FILTERS = ("bicubic", "bilinear", "box", "lanczos", "nearest")


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.splitlines()[0])
    flags.add_argument("--images", type=user_path, required=True, help="a folder or an .npz")
    flags.add_argument("--pretrained", type=user_path, required=True, help="weights of --network")
    flags.add_argument("--network", default="efficientnet_lite0")
    flags.add_argument("--num", type=int, default=500, help="images on each side")
    flags.add_argument("--metrics", nargs="+", default=["frechet_distance"])
    args = smoke.parse(flags, argv, smoke_flags)

    pictures = open_side(args.images).images
    rows = np.random.default_rng(0).permutation(len(pictures))[: 2 * args.num]
    images = np.stack([pictures.read(int(row)) for row in rows])
    reference, samples = np.array_split(images, 2)
    side = images.shape[1] // 2
    names = [f"{metric}:network={args.network}" for metric in args.metrics]

    def show(what: str, x: np.ndarray, against: np.ndarray, **options) -> None:
        found = evaluate(x, against, names, weights=args.pretrained, **options)["metrics"]
        values = "   ".join(f"{key} {value:9.4f}" for key, value in found.items())
        print(f"{what:<44} {values}", flush=True)

    count = len(samples)
    for part in (1, 2, 4):
        show(
            f"{count // part} samples, {count} reference images",
            samples[: count // part],
            reference,
        )
    show("samples as JPEG of quality 75", np.stack([jpeg(x) for x in samples]), reference)
    small = np.stack([Fitting((side, side))(x) for x in reference])
    for name in FILTERS:
        show(f"brought to {side} px: {name}, reference bicubic", samples, small, resize=name)
    floats = np.stack([in_floats(x, side) for x in samples])
    for rounding in ("nearest", "truncated", "floor"):
        show(f"floats of {side} px rounded: {rounding}", floats, small, rounding=rounding)


def jpeg(image: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def in_floats(image: np.ndarray, side: int) -> np.ndarray:
    """Bicubic as for the reference, but not rounded: (side, side, 3) in [-1, 1]."""
    channels = [Image.fromarray(np.float32(image[..., c])).resize((side, side), Image.BICUBIC)
                for c in range(3)]  # fmt: skip
    return np.clip(np.stack(channels, -1) / 127.5 - 1, -1, 1)


def smoke_flags() -> list[str]:
    file, images = smoke.folder() / "lite0.safetensors", smoke.folder() / "images.npz"
    network, rng = catalogue()["efficientnet_lite0"].network(), np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.uniform(0.01, 0.1, s.shape).astype("f4"), network.shapes)
    write_weights(Path(file), params, "efficientnet_lite0", "random")
    np.savez(images, images=smoke.random_images(16))
    # Not the default metric: the roots of covariances of 1,280 features take seconds each.
    return [f"--images={images}", f"--pretrained={file}", "--num=8", "--metrics=cmmd"]


if __name__ == "__main__":
    run_command(main)
