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

Each part runs in a process of its own, so that one that runs out of memory, crashes or hangs is one
line and the others go on. Contenders are warmed up until they are steady; then rounds are
interleaved, and medians are printed. A part has a share of the time, and what earlier parts have
left of theirs; then it is cut or skipped with a line. The JSON file is written again after every
part, with what a part that was cut has found.

Memory: JAX takes what it needs, up to a fraction of the device that is chosen here
(XLA_CLIENT_MEM_FRACTION): 55 % in a part that compares with PyTorch, which gets the rest,
and 90 % in the others.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    accelerator_images,
    accelerator_kernels,
    accelerator_numerics,
    accelerator_speed,
    bare,
    smoke,
)
from benchmarks.accelerator_device import describe
from benchmarks.timed import noted, stop_at
from sphere_jax.cli import run_command
from sphere_jax.common.files import write_json

Part = Callable[[argparse.Namespace, float, dict[str, Any]], None]  # fills the dictionary
PARTS: dict[str, tuple[float, Part]] = {  # seconds, the start of its process among them
    "device": (15, describe),
    "geometry": (15, accelerator_numerics.geometry),
    "train_sit_b": (110, accelerator_speed.part("train", "sit_b")),
    "sample_sit_b": (40, accelerator_speed.part("sample", "sit_b")),
    "train_sit_xl": (62, accelerator_speed.part("train", "sit_xl")),
    "sample_sit_xl": (45, accelerator_speed.part("sample", "sit_xl")),
    "train_lightning_xl": (60, accelerator_speed.part("train", "lightning_xl")),
    "kernels": (25, accelerator_kernels.kernels),
    "images": (28, accelerator_images.images),
    "methods": (32, accelerator_numerics.methods),
}
MINUTES = 7.2  # of all parts; the start of this process and the last seconds are beside it
LEAST = 0.5  # of its seconds: with less time left a part is skipped
CUT, KILLED = 12, 20  # seconds after its time a part ends itself, and its process is killed
MEMORY = {True: "0.55", False: "0.9"}  # JAX's share, with PyTorch in the same process or not
SMOKE = [
    "--minutes=60",
    "--network_sizes",
    "width=32",
    "depth=1",
    "heads=2",
    "--latent_side=2",
    "--classes=3",
]
SMOKE += ["--batch=2", "--steps=2", "--repeats=1", "--rounds=1", "--seconds=0", "--warm_up=0"]
SMOKE += ["--no_compile", "--vectors=64", "--most_methods=1", "--image_side=16"]
SMOKE += ["--networks", "taesd", "--profiled", "sample"]
SMOKE += ["--parts", "device", "geometry", "sample_sit_xl", "kernels", "images"]


def main(argv: list[str]) -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--out", type=Path, default=Path("accelerator.json"), help="JSON file")
    flags.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together")
    flags.add_argument("--begun", type=float, help="by time.monotonic; default: now")
    flags.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    flags.add_argument("--rounds", type=int, default=7, help="most rounds of a comparison")
    flags.add_argument("--seconds", type=float, default=0.5, help="least time of a turn")
    flags.add_argument("--warm_up", type=float, default=6, help="most seconds of a contender's")
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
    start = time.monotonic() if args.begun is None else args.begun
    found: dict[str, Any] = {"parts": {}, "seconds": {}, "unfinished": {}}
    found["stand_ins"] = bare.MISSING
    if len(args.parts) == 1:
        _run(args.parts[0], args, start, found)
    else:
        given = [*SMOKE, *(flag for flag in argv if flag != "--smoke")] if args.smoke else argv
        _run_all(args, given, start, found)
    if args.begun is None:
        print(f"\n{time.monotonic() - start:.0f} s; {args.out}")


def _run_all(args: argparse.Namespace, argv: list[str], start: float, found: dict) -> None:
    """Each part in a process of its own, which is this command with that part alone."""
    end = start + 60 * args.minutes
    shares = {name: PARTS[name][0] for name in args.parts}
    longer = max(1.0, 60 * args.minutes / sum(shares.values()))
    until = start
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(smoke.ROOT), os.environ.get("PYTHONPATH", "")]),
            # Part `kernels` needs programs of other parts.
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", folder),
        }
        for name, share in shares.items():
            begun, until = time.monotonic(), min(end, until + longer * share)
            if until - begun < LEAST * share:
                why = f"{max(0, until - begun):.0f} s are left of {args.minutes:g} minutes"
                _say_unfinished(found, name, why)
            else:
                out = Path(folder) / f"{name}.json"
                command = [*_command(), *argv, "--parts", name, f"--out={out}"]
                command += [f"--begun={begun}", f"--minutes={(until - begun) / 60}"]
                ending = _end_of(command, environment, until + KILLED)
                _merge(found, name, out, ending)
                found["seconds"][name] = round(time.monotonic() - begun, 1)
            write_json(args.out, found)


def _command() -> list[str]:
    return [sys.executable, "-m", "benchmarks.accelerator"]


def _end_of(command: list[str], environment: dict[str, str], until: float) -> str:
    """How a process has ended, which is killed at `until`, by `time.monotonic`."""
    try:
        code = subprocess.run(command, env=environment, timeout=until - time.monotonic()).returncode
    except subprocess.TimeoutExpired:
        return "its process was killed because the time was over"
    if code < 0:
        return f"its process ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _merge(found: dict, name: str, file: Path, ending: str) -> None:
    """What the process of a part has written, or else how it `ending`."""
    if not file.exists():
        _say_unfinished(found, name, ending)
        return
    written = json.loads(file.read_text())
    for key in ("parts", "unfinished"):
        found[key] |= written[key]


def _run(name: str, args: argparse.Namespace, start: float, found: dict) -> None:
    """One part, in this process."""
    beside_torch = name.startswith(("train", "sample"))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:  # an older name; JAX refuses both
        os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", MEMORY[beside_torch])
    end = start + 60 * args.minutes
    found["running"], found["parts"][name] = name, {}
    print(f"\n== {name}", flush=True)
    with stop_at(end + CUT, found, args.out), noted(found["unfinished"], name):
        PARTS[name][1](args, end, found["parts"][name])
    del found["running"]
    found["seconds"][name] = round(time.monotonic() - start, 1)
    write_json(args.out, found)


def _say_unfinished(found: dict, name: str, why: str) -> None:
    found["unfinished"][name] = why
    print(f"\n{name} is not finished: {why}", flush=True)


if __name__ == "__main__":
    run_command(main)
