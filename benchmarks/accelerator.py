"""What one GPU says of this code, in less than eight minutes; also runs on a TPU or a CPU.

    python -m benchmarks.accelerator --out=accelerator.json

It needs JAX, Flax, Optax and numpy, and PyTorch for the comparisons; it fetches nothing and uses
neither orbax nor grain (`benchmarks/bare.py` stands in for small packages that are missing). Parts,
in this order; --parts chooses some of them:

- device: name, memory, versions, rate of large bfloat16 products.
- geometry: functions on spheres on this device against float64 on the host, with products set to
  the roughest precision.
- train_sit_b, sample_sit_b, train_sit_xl, sample_sit_xl, train_lightning_xl: training steps and 50
  guided sampling steps of SiT-B/2, SiT-XL/2 and LightningDiT-XL/1 at 256 tokens in bfloat16 against
  the same networks in PyTorch: autocast, scaled_dot_product_attention, torch.compile, fused AdamW,
  and a moving average on both sides.
- kernels: what a training step of SiT-B/2 and a sampling step of SiT-XL/2 spend their time on.
- images: Inception features and decodings of the SD VAE, images per second.
- methods: loss and gradient of every method on one batch, bfloat16 against float32.

Rounds are interleaved and medians are printed. A part has a share of the time and is cut or skipped
with a line when that is over. The JSON file is written again after every part.
"""

import argparse
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs some of the memory

import jax

from benchmarks import (
    accelerator_images,
    accelerator_kernels,
    accelerator_numerics,
    accelerator_speed,
    bare,
    rounds,
    smoke,
)
from benchmarks.accelerator_device import describe
from benchmarks.timed import reason, stop_at
from sphere_jax.cli import run_command
from sphere_jax.common.files import write_json

PARTS: dict[str, tuple[float, Callable[[argparse.Namespace, float], Any]]] = {  # seconds, function
    "device": (10, describe),
    "geometry": (20, accelerator_numerics.geometry),
    "train_sit_b": (80, accelerator_speed.part("train", "sit_b")),
    "sample_sit_b": (35, accelerator_speed.part("sample", "sit_b")),
    "train_sit_xl": (70, accelerator_speed.part("train", "sit_xl")),
    "sample_sit_xl": (40, accelerator_speed.part("sample", "sit_xl")),
    "train_lightning_xl": (70, accelerator_speed.part("train", "lightning_xl")),
    "kernels": (25, accelerator_kernels.kernels),
    "images": (45, accelerator_images.images),
    "methods": (55, accelerator_numerics.methods),
}
MINUTES = 7.5  # of all parts
LEAST = 0.3  # of its seconds: with less time left a part is skipped
SMOKE = ["--network_sizes", "width=32", "depth=1", "heads=2", "--latent_side=2", "--classes=3"]
SMOKE += ["--batch=2", "--steps=2", "--repeats=1", "--rounds=1", "--seconds=0", "--no_compile"]
SMOKE += ["--vectors=64", "--most_methods=1", "--image_side=16", "--networks", "taesd"]
SMOKE += ["--parts", "device", "geometry", "sample_sit_xl", "kernels", "images"]
SMOKE += ["--profiled", "sample"]


def main(argv: list[str]) -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--out", type=Path, default=Path("accelerator.json"), help="JSON file")
    flags.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together")
    flags.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    flags.add_argument("--rounds", type=int, default=7, help="most rounds of a comparison")
    flags.add_argument("--seconds", type=float, default=0.5, help="least time of a turn")
    flags.add_argument("--repeats", type=int, default=5, help="train steps of one call")
    flags.add_argument("--steps", type=int, default=50, help="of Euler")
    flags.add_argument("--batch", type=int, help="of all parts; default: each its own")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--no_compile", action="store_true", help="leave torch.compile out")
    accelerator_speed.add_flags(flags)
    accelerator_numerics.add_flags(flags)
    accelerator_kernels.add_flags(flags)
    accelerator_images.add_flags(flags)
    args = smoke.parse(
        flags, argv, lambda: [*SMOKE, f"--out={smoke.folder() / 'accelerator.json'}"]
    )
    start = time.monotonic()
    end = start + 60 * args.minutes
    found: dict[str, Any] = {"parts": {}, "seconds": {}, "not_run": {}, "stand_ins": bare.MISSING}
    guard = stop_at(end + 20, found, args.out)
    for name in args.parts:
        begun, (share, run) = time.monotonic(), PARTS[name]
        if end - begun < LEAST * share:
            _skip(found, name, f"{end - begun:.0f} s are left of {args.minutes:g} minutes")
        else:
            found["running"] = name
            print(f"\n== {name}", flush=True)
            try:
                found["parts"][name] = run(args, min(begun + share, end))
            except Exception as error:  # the others are worth having
                _skip(found, name, reason(error))
            found["seconds"][name] = round(time.monotonic() - begun, 1)
            found.pop("running")
            _free()
        write_json(args.out, found)
    guard.cancel()
    print(f"\n{time.monotonic() - start:.0f} s; {args.out}")


def _skip(found: dict, name: str, why: str) -> None:
    found["not_run"][name] = why
    print(f"{name} was not run: {why}", flush=True)


def _free() -> None:
    """Memory of both frameworks, for the next part."""
    gc.collect()
    if jax.default_backend() != "cpu":
        jax.clear_caches()
    if rounds.torch and rounds.torch.cuda.is_available():
        rounds.torch._dynamo.reset()
        gc.collect()
        rounds.torch.cuda.empty_cache()


if __name__ == "__main__":
    run_command(main)
