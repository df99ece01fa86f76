"""The device of `benchmarks.accelerator`: what it is, and what share of its peak is reached."""

import argparse
import importlib.metadata
import re
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import rounds

# Dense bfloat16 FLOP/s by the vendors' data sheets; the first that the device's name contains.
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12,
    "B200": 2250e12, "A100": 312e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12, "L4": 121e12,
    "RTX 4090": 165e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12,
    "TPU v5": 459e12, "TPU v6": 918e12,
}  # fmt: skip
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "triton")


def peak(kind: str) -> float | None:
    """Of a device of this name, None where it is not known."""
    return next((value for name, value in PEAKS.items() if _in(name, kind)), None)


def _in(name: str, kind: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", kind) is not None


def describe(args: argparse.Namespace, deadline: float, found: dict[str, Any]) -> None:
    """Names, versions, and the rate of large products in both frameworks."""
    device = jax.devices()[0]
    found |= {
        "kind": device.device_kind,
        "platform": device.platform,
        "peak_bfloat16": peak(device.device_kind),
        "memory_limit": (device.memory_stats() or {}).get("bytes_limit"),
        "versions": _versions(),
        "torch_device": torch_device(),
        "failed": {},
    }
    print(f"{found['kind']} ({found['platform']}); {found['versions']}", flush=True)
    size = 8192 if device.platform != "cpu" else 256
    x = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    product = jax.jit(jnp.dot)
    contenders = {"jax": lambda: product(x, x).block_until_ready()}
    if rounds.torch:
        contenders["torch"] = _torch_product(size)
    times = in_rounds(contenders, args, deadline, found)
    found["product_flops"] = {
        name: 2 * size**3 / statistics.median(seconds) for name, seconds in times.items()
    }
    known = found["peak_bfloat16"]
    sheet = f", {known / 1e12:.0f} by its data sheet" if known else ""
    for name, flops in found["product_flops"].items():
        print(f"  bfloat16 product of {size}: {name} {flops / 1e12:.3g} TFLOP/s{sheet}", flush=True)


def in_rounds(
    contenders: dict[str, Callable[[], None]],
    args: argparse.Namespace,
    deadline: float,
    found: dict[str, Any],
) -> dict[str, list[float]]:
    """`rounds.time_rounds` of a part: `found["rounds_s"]` and ["failed"] are filled meanwhile."""
    return rounds.time_rounds(
        contenders,
        args.rounds,
        seconds=args.seconds,
        deadline=deadline,
        warm_up=args.warm_up,
        failed=found["failed"],
        times=found.setdefault("rounds_s", {}),
    )


def torch_device() -> str:
    """ "cuda" where PyTorch has one, else "cpu"; "" without PyTorch."""
    if not rounds.torch:
        return ""
    return "cuda" if rounds.torch.cuda.is_available() else "cpu"


def _torch_product(size: int):
    import torch

    where = torch_device()
    y = torch.randn(size, size, device=where).bfloat16()

    def call():
        y @ y
        if where == "cuda":
            torch.cuda.synchronize()

    return call


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
