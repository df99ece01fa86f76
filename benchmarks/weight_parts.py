"""A tree of weights in several small files: bfloat16, its two bytes apart, which compresses.

`read_parts(write_parts(...))` is the tree in bfloat16's precision.
"""

from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

from sphere_jax.weights.tensors import named_leaves

LIMIT = 15 * 2**20  # bytes of numbers in a file


def write_parts(folder: Path, name: str, params: dict, limit: int = LIMIT) -> list[Path]:
    """NAME-00.npz, NAME-01.npz ...; a leaf that is larger than a file is cut along its first axis.

    Arrays are "leaf/path@start" + ":high" and ":low", uint8, of the rows from `start` on.
    """
    blocks = []
    for path, leaf in named_leaves(params).items():
        half = np.atleast_1d(np.asarray(leaf, np.float32)).astype(ml_dtypes.bfloat16)
        rows = max(1, int(limit // max(half[:1].nbytes, 1)))
        blocks += [
            (f"{path}@{start}", half[start : start + rows]) for start in range(0, len(half), rows)
        ]
    files, group, size = [], {}, 0
    for key, block in blocks:
        if group and size + block.nbytes > limit:
            files.append(_write(folder, name, len(files), group))
            group, size = {}, 0
        group[key], size = block, size + block.nbytes
    files.append(_write(folder, name, len(files), group))
    return files


def _write(folder: Path, name: str, number: int, group: dict[str, np.ndarray]) -> Path:
    path, arrays = folder / f"{name}-{number:02d}.npz", {}
    for key, block in group.items():
        words = np.ascontiguousarray(block).view(np.uint16)
        arrays[f"{key}:high"] = (words >> 8).astype(np.uint8)
        arrays[f"{key}:low"] = words.astype(np.uint8)
    np.savez_compressed(path, **arrays)
    return path


def read_parts(files: Iterable[Path]) -> dict[str, np.ndarray]:
    """float32 arrays by the paths of their leaves; scalars have the shape (1,)."""
    pieces: dict[str, dict[int, np.ndarray]] = {}
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            for key in arrays:
                if not key.endswith(":high"):
                    continue
                stem = key.removesuffix(":high")
                path, _, start = stem.rpartition("@")
                words = arrays[key].astype(np.uint16) << 8 | arrays[f"{stem}:low"]
                block = words.view(ml_dtypes.bfloat16).astype(np.float32)
                pieces.setdefault(path, {})[int(start)] = block
    return {
        path: np.concatenate([blocks[start] for start in sorted(blocks)])
        for path, blocks in pieces.items()
    }
