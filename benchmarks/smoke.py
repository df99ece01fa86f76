"""`--smoke`, which every benchmark has: it runs in seconds and needs nothing that is not shipped.

The flag stands for a list of other flags, tiny sizes, and for inputs that are made here: random
weights, random images, and a run that was trained on them for two steps. The code is that of a
measurement; the numbers mean nothing.
"""

import argparse
import atexit
import contextlib
import functools
import shutil
import sys
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import jax
import numpy as np

from sphere_jax.nn.functional import Network, Params
from sphere_jax.weights.stored import write_weights

ROOT = Path(__file__).parents[1]
NOTICE = "Smoke mode: tiny sizes, random weights and data; the numbers mean nothing."
SIDE = 16  # pixels
RUN = {  # of the trained run, on configs/cifar10_taef2.py
    "data.source": "npz",
    "data.image_size": SIDE,
    "data.num_classes": 2,
    "data.flip": False,
    "tokenizer.kind": "taesd",
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "model.unroll": False,
    "decoder.steps": 2,
    "decoder.batch_size": 4,
    "decoder.measured": 0,
    "decoder.optimizer.warmup": 1,
    "flow.steps": 2,
    "flow.batch_size": 4,
    "flow.optimizer.warmup": 1,
    "sampler.steps": 1,
    "evaluation.samples": 0,
    "evaluation.features": "small_classifier",
}


def parse(
    flags: argparse.ArgumentParser, argv: list[str], smoke: Callable[[], list[str]]
) -> argparse.Namespace:
    """The arguments in `argv`. With --smoke the flags of `smoke()` come before them, so that those
    on the command line win, and `NOTICE` is printed."""
    flags.add_argument(
        "--smoke", action="store_true", help="tiny sizes, random weights and data: does it run?"
    )
    if "--smoke" not in argv:
        return flags.parse_args(argv)
    print(f"{NOTICE}\n", flush=True)
    return flags.parse_args([*smoke(), *argv])


@functools.cache
def folder() -> Path:
    """A temporary folder that is deleted when the process ends."""
    path = tempfile.mkdtemp(prefix="benchmark_smoke_")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def random_params(network: Network, seed: int = 0) -> Params:
    """Normal numbers of deviation 0.05 in the shapes of its parameters."""
    rng = np.random.default_rng(seed)
    shapes = network.shapes
    return jax.tree.map(lambda x: 0.05 * rng.standard_normal(x.shape, np.float32), shapes)


def random_images(count: int, side: int = SIDE) -> np.ndarray:
    """uint8 (count, side, side, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def jpegs(images: np.ndarray) -> dict[str, np.ndarray]:
    """Test images as an .npz holds them: `test_jpeg_bytes` (bytes,), `test_offsets` (N + 1,)."""
    from PIL import Image

    files = []
    for image in images:
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG")
        files.append(file.getvalue())
    return {
        "test_jpeg_bytes": np.frombuffer(b"".join(files), np.uint8),
        "test_offsets": np.cumsum([0, *map(len, files)]),
    }


@functools.cache
def trained_run() -> Path:
    """The folder of a finished run: two steps of decoder finetuning, then two of a flow."""
    from sphere_jax import main
    from sphere_jax.models.tiny_vae import KINDS, TinyVAE

    data, weights, run = (folder() / name for name in ("images.npz", "taesd.safetensors", "run"))
    np.savez(data, images=random_images(20), labels=np.arange(20) % 2)
    network = Network(lambda rngs: TinyVAE(*KINDS["taesd"], rngs=rngs))
    write_weights(weights, random_params(network), "taesd", "random")
    options = RUN | {"data.path": data, "tokenizer.pretrained": weights}
    flags = [f"--config.{key}={value}" for key, value in options.items()]
    with contextlib.redirect_stdout(sys.stderr):
        main.main([f"--config={ROOT / 'configs/cifar10_taef2.py'}", f"--workdir={run}", *flags])
    return run
