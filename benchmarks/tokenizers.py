"""Reconstructions by the tiny autoencoders, as published and with every token on one sphere.

    python -m benchmarks.tokenizers --data ../shared/data --out docs/tokenizers.md

Prints and writes the page; with --picture=FILE.png also a few flowers, which may not be published
here. Nothing in it is random.
"""

import shlex
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks import smoke
from benchmarks.tokenizers_page import MEAN, NAMES, PLAIN, ROOT, Measured, Shell, page, picture
from sphere_jax.cli import Parser, run_command
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_folder, write_bytes, write_text
from sphere_jax.config.options import DataOptions
from sphere_jax.data.npz_files import check_has, read_npz
from sphere_jax.data.pictures import unpack
from sphere_jax.data.pipeline import map_batched
from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.evaluation.reconstruction import psnr, ssim
from sphere_jax.geometry import sphere
from sphere_jax.models.lpips import LPIPS
from sphere_jax.models.tiny_vae import KINDS
from sphere_jax.models.tiny_vae import TinyVAE as TinyVAENetwork
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.tokenizers.tiny_vae import TinyVAE
from sphere_jax.weights.layouts import lpips as lpips_weights
from sphere_jax.weights.layouts import tiny_vae as tiny_vae_weights
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.stored import load_weights, write_safetensors, write_weights
from sphere_jax.weights.tensors import convert, export

SETS = {  # name -> file, side in pixels, test images at most
    "Flowers": ("flowers12_224.npz", 224, 240),
    "CIFAR-10": ("cifar10_jpeg.npz", 64, 1000),
}
LPIPS_FILE = "lpips_alexnet.safetensors"  # as the two files of each kind, in the folder "weights"
PIXELS = 2**19  # of a batch


def shell(latents: np.ndarray) -> Shell:
    """Of latents (N, h, w, d)."""
    norms = np.asarray(sphere.safe_norm(latents), np.float64)
    channels = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    ranges = [(float(x.min()), float(x.max())) for x in (channels.mean(0), channels.std(0))]
    return Shell(channels.shape[1], float(norms.mean()), float(norms.std() / norms.mean()), *ranges)


def measure(
    tokenizer: TinyVAE, params: Params, lpips: Callable, images: np.ndarray, name: str
) -> Measured:
    """`lpips(x, y)` takes float images; `name` is for the progress lines."""
    size = min(PIXELS // images.shape[1] ** 2, len(images))
    sharding = batch_sharding(make_mesh())

    @jax.jit
    def encode(params, images):
        return tokenizer.encode(params, to_float(images))

    @jax.jit
    def decode(params, images, latents):
        decoded = to_uint8(tokenizer.decode(params, latents))
        scores = {"psnr": psnr(images, decoded), "ssim": ssim(images, decoded)}
        scores["lpips"] = lpips(to_float(images), to_float(decoded))
        return {"scores": scores, "images": decoded}

    def run(what, function, *arrays):
        return map_batched(function, arrays, size, sharding, what)

    latents = run(f"{name}, encoding", lambda x: encode(params, x), images)
    stats = shell(latents)
    scores, pictures = {}, {}
    for variant, radius in ((PLAIN, None), (MEAN, stats.norm), (ROOT, stats.d**0.5)):
        z = latents if radius is None else np.asarray(sphere.normalize(latents, radius))
        out = run(f"{name}, decoding {variant}", lambda x, z: decode(params, x, z), images, z)
        scores[variant] = {m: float(np.mean(v, dtype=np.float64)) for m, v in out["scores"].items()}
        pictures[variant] = out["images"]
    return Measured(stats, scores, pictures)


def load_images(folder: Path, file: str, side: int, most: int) -> np.ndarray:
    """The first `most` test images, uint8 (N, side, side, 3), resized bicubically to that side.
    Raises UserError."""
    path = str(folder / file)
    arrays = read_npz(path)
    check_has(arrays, ("test_jpeg_bytes", "test_offsets"), path)
    arrays["test_offsets"] = arrays["test_offsets"][: most + 1]
    return unpack(
        arrays, "test_", DataOptions(source="npz", path=path, image_size=side, channels=3)
    )


def load_vae(weights: Path, kind: str) -> Params:
    """From the two files of its halves. Raises UserError."""
    network, files = tiny_vae(kind), vae_files(weights, kind).values()
    try:
        return convert(open_tensors(*files), tiny_vae_weights.layouts(network), network)
    except ValueError as error:
        names = " and ".join(path.name for path in files)
        raise UserError(f"The weights {names} cannot be used: {error}.") from error


def load_lpips(weights: Path) -> tuple[Network, Params]:
    """Raises UserError."""
    network = alexnet()
    params = load_weights(weights / LPIPS_FILE, "lpips_alexnet", network, lpips_weights.layouts)
    return network, jax.tree.map(np.asarray, params)


def tiny_vae(kind: str) -> Network:
    return Network(lambda rngs: TinyVAENetwork(*KINDS[kind], rngs=rngs))


def vae_files(weights: Path, kind: str) -> dict[str, Path]:
    """Its files by their part, "encoder" and "decoder"."""
    return {part: weights / f"{kind}_{part}.safetensors" for part in ("encoder", "decoder")}


def alexnet() -> Network:
    return Network(lambda rngs: LPIPS("alex", rngs=rngs))


def smoke_flags() -> list[str]:
    """Images and weights as `--data` holds them, random."""
    data = smoke.folder() / "data"
    (data / "weights").mkdir(parents=True, exist_ok=True)
    for file, _, _ in SETS.values():
        np.savez(data / file, **smoke.jpegs(smoke.random_images(3)))
    lpips = smoke.random_params(alexnet())
    write_weights(data / "weights" / LPIPS_FILE, lpips, "lpips_alexnet", "random")
    for kind in NAMES:
        network = tiny_vae(kind)
        tensors = export(smoke.random_params(network), tiny_vae_weights.layouts(network)[0])
        for part, file in vae_files(data / "weights", kind).items():
            half = {name: x for name, x in tensors.items() if name.startswith(f"{part}.")}
            write_safetensors(file, half, {})
    out, picture = smoke.folder() / "tokenizers.md", smoke.folder() / "tokenizers.png"
    return [f"--data={data}", f"--out={out}", f"--picture={picture}", "--side=32", "--most=2"]


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.splitlines()[0], "On two busy cores it took an hour.")
    flags.add_argument("--data", type=Path, required=True, help="folder of images and weights")
    flags.add_argument("--out", type=Path, default=Path("docs/tokenizers.md"), help="the page")
    flags.add_argument("--picture", type=Path, help="FILE.png for a few flowers")
    flags.add_argument("--most", type=int, help="images of a data set at most, for a quick look")
    flags.add_argument("--side", type=int, help="of all images, in pixels, for a quick look")
    args = smoke.parse(flags, argv, smoke_flags)
    if args.most is not None and args.most < 1:
        raise UserError(f"--most={args.most} must be at least 1.")
    make_folder(args.out.parent)
    sets = {
        name: (file, args.side or side, min(most, args.most or most))
        for name, (file, side, most) in SETS.items()
    }

    # All files are read before anything is measured.
    lpips, lpips_params = load_lpips(args.data / "weights")
    params = {kind: load_vae(args.data / "weights", kind) for kind in NAMES}
    images = {name: load_images(args.data, *which) for name, which in sets.items()}

    measured = {
        name: {
            kind: measure(
                TinyVAE.of_kind(side, kind),
                params[kind],
                lambda x, y: lpips.apply(lpips_params, x, y),
                images[name],
                f"{name}, {NAMES[kind]}",
            )
            for kind in NAMES
        }
        for name, (_, side, _) in sets.items()
    }
    command = f"python -m benchmarks.tokenizers {shlex.join(argv)}"
    text = page(command, sets, {n: len(x) for n, x in images.items()}, measured)
    print(text)
    write_text(args.out, text)
    if args.picture:
        write_bytes(args.picture, picture(images["Flowers"], measured["Flowers"]))


if __name__ == "__main__":
    run_command(main)
