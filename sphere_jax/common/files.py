"""Files are replaced whole: a reader sees the old one or the new one, never a part of one."""

import json
import math
import os
import socket
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError


def write_text(path: str | os.PathLike, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Standard JSON; NaN and infinity, which it lacks, become null."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def read_json(file: Path) -> dict[str, Any] | None:
    """None where there is no such file. Raises UserError if it is damaged."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it.") from error


def write_npz(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:  # of a path, numpy would change the name
            np.savez(file, **arrays)

    write_whole(path, fill)


def make_folder(folder: Path) -> None:
    """Makes `folder`. Raises UserError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"Cannot write to {folder} ({error.strerror}).") from error


def cache_folder(kind: str) -> Path:
    """Where files that can be made again are cached: $SPHERE_JAX_KIND, else sphere_jax/kind in the
    user's cache folder.

    Kinds: "weights" (downloads), "listings" (labels and fingerprints of data sets).
    """
    if named := os.environ.get(f"SPHERE_JAX_{kind.upper()}"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sphere_jax" / kind


def in_bytes(count: float) -> str:
    """1500 -> "1.5 kB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count:,.0f} GB"


def temporary_beside(path: Path) -> Path:
    """Where a process writes before it renames to `path`; other hosts may write `path` as well."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def write_whole(path: str | os.PathLike, fill: Callable[[Path], Any]) -> None:
    """Puts what `fill` writes to a temporary path at `path`, and its folders around it.

    Raises UserError if that cannot be written.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if temporary.is_file():
            temporary.unlink()
        raise UserError(f"Cannot write {path} ({error.strerror or error}).") from error


def _finite(content: Any) -> Any:
    if isinstance(content, (np.ndarray, np.generic)):
        content = content.tolist()
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content


def crc32(path: Path) -> int:
    """Of a file's content: fast, and any burst of flipped bits changes it."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total
