"""Stand-ins for small packages that an image with JAX, Flax, Optax and PyTorch may lack.

`benchmarks/__init__.py` imports this module before any of sphere_jax. It puts a module in place of
each of these that is not installed, with as much of it as `benchmarks.accelerator` and
`benchmarks.accelerator_study` use:

- jaxtyping: every annotation is `Any`.
- einops: `rearrange` of arrays, without ellipses and without axes of length one.
- safetensors: reading; writing is refused.
- ml_collections: a `ConfigDict` that a config file fills.
- PIL: its names; what decodes or resizes a picture is refused.

A package that is installed is never replaced.
"""

import importlib.util
import json
import math
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


def stand_in() -> list[str]:
    """Makes them. Names of the packages that are not installed and have a stand-in now."""
    made = {
        "jaxtyping": _jaxtyping,
        "einops": lambda: _module("einops", rearrange=rearrange),
        "safetensors": _safetensors,
        "ml_collections": lambda: _module("ml_collections", ConfigDict=ConfigDict),
        "PIL": _pillow,
    }
    missing = [
        name
        for name in made
        if sys.modules.get(name) is None and importlib.util.find_spec(name) is None
    ]
    for name in missing:
        made[name]()
    return missing


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    return module


class _Typed:
    """`Float[Array, "batch width"]` is Any."""

    def __class_getitem__(cls, item: Any) -> Any:
        return Any


def _jaxtyping() -> None:
    import jax

    kinds = "Bool Float Float32 Float64 Int Int32 Int64 Integer Key Num PyTree Real Shaped UInt8"
    _module("jaxtyping", Array=jax.Array, **{kind: _Typed for kind in kinds.split()})


# --- einops --------------------------------------------------------------------------------------


def rearrange(x: Any, pattern: str, **sizes: int) -> Any:
    """As `einops.rearrange` for patterns of names and groups of names: "b (h p) c -> b h (p c)".

    Raises:
      ValueError: a pattern with anything else, with other names on its two sides, or that does not
        fit the shape.
    """
    left, right = (_groups(side) for side in pattern.split("->"))
    names = [name for group in left for name in group]
    order = [name for group in right for name in group]
    if sorted(names) != sorted(order) or len(set(names)) != len(names) or len(left) != x.ndim:
        raise ValueError(f"'{pattern}' does not rearrange an array of shape {x.shape}")
    found = {}
    for group, length in zip(left, x.shape, strict=True):
        unknown = [name for name in group if name not in sizes]
        known = math.prod(sizes[name] for name in group if name in sizes)
        if len(unknown) > 1 or length % known or (not unknown and length != known):
            raise ValueError(f"'{pattern}' does not fit a shape of {x.shape} with {sizes}")
        found |= {name: sizes.get(name, length // known) for name in group}
    split = x.reshape([found[name] for name in names])
    turned = split.transpose([names.index(name) for name in order])
    return turned.reshape([math.prod(found[name] for name in group) for group in right])


def _groups(side: str) -> list[list[str]]:
    """ "b (h p)" as [["b"], ["h", "p"]]."""
    groups, inside = [], False
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word in "()":
            inside = word == "("
            if inside:
                groups.append([])
        elif not word.isidentifier():
            raise ValueError(f"'{word}' in '{side}' is not the name of an axis")
        elif inside:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


# --- safetensors ---------------------------------------------------------------------------------


class SafetensorError(Exception):
    """The file is not a whole .safetensors file."""


DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}  # fmt: skip
LONGEST_HEADER = 100_000_000  # bytes, as the package allows


class safe_open:  # the name of the original
    """A .safetensors file: eight bytes of the header's length, JSON, and the tensors' bytes."""

    def __init__(self, path: Any, framework: str):
        try:
            with open(path, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > LONGEST_HEADER:
                    raise ValueError(f"a header of {length} bytes")
                header = json.loads(file.read(length))
            self._metadata = header.pop("__metadata__", None)
            self._bytes = np.memmap(path, np.uint8, "r", 8 + length)
            self._entries = {name: self._checked(entry) for name, entry in header.items()}
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SafetensorError(f"{error}") from error

    def _checked(self, entry: dict) -> tuple[str, tuple[int, ...], int, int]:
        kind, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        size = math.prod(shape) * _dtype(kind).itemsize
        if stop - start != size or not 0 <= start <= stop <= len(self._bytes):
            raise ValueError("a tensor that does not fit the file")
        return kind, shape, start, stop

    def __enter__(self) -> "safe_open":
        return self

    def __exit__(self, *exception: Any) -> None:
        pass

    def metadata(self) -> dict[str, str] | None:
        return self._metadata

    def keys(self) -> list[str]:
        return list(self._entries)

    def get_tensor(self, name: str) -> np.ndarray:
        kind, shape, start, stop = self._entries[name]
        return np.array(self._bytes[start:stop]).view(_dtype(kind)).reshape(shape)

    def get_slice(self, name: str) -> "_Slice":
        return _Slice(self, name)


class _Slice:
    def __init__(self, file: safe_open, name: str):
        self._file, self._name = file, name

    def get_shape(self) -> list[int]:
        return list(self._file._entries[self._name][1])

    def get_dtype(self) -> str:
        return self._file._entries[self._name][0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._file.get_tensor(self._name)[index]


def _dtype(kind: str) -> np.dtype:
    import ml_dtypes  # with JAX

    name = DTYPES[kind]
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _not_written(*arguments: Any) -> None:
    raise SafetensorError("the package safetensors is not installed here")


def _safetensors() -> None:
    module = _module("safetensors", SafetensorError=SafetensorError, safe_open=safe_open)
    module.numpy = _module("safetensors.numpy", save_file=_not_written)


# --- ml_collections ------------------------------------------------------------------------------


class ConfigDict(dict):
    """A dictionary whose items are attributes, too; plain dictionaries in it become such ones."""

    def __init__(self, items: Any = ()):
        super().__init__()
        for name, value in dict(items).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, ConfigDict(value) if type(value) is dict else value)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__: Callable = __setitem__
    __delattr__: Callable = dict.__delitem__

    def to_dict(self) -> dict[str, Any]:
        return {
            name: value.to_dict() if isinstance(value, ConfigDict) else value
            for name, value in self.items()
        }


# --- Pillow --------------------------------------------------------------------------------------


class UnidentifiedImageError(OSError):
    """Nothing raises it here."""


class _Resampling:
    def __class_getitem__(cls, name: str) -> str:
        return name


def _refused(*arguments: Any) -> None:
    raise ImportError("Pillow is not installed here, which decodes and resizes pictures")


def _pillow() -> None:
    functions = {"open": _refused, "fromarray": _refused}
    image = _module("PIL.Image", Image=Any, Resampling=_Resampling, **functions)
    _module("PIL", Image=image, UnidentifiedImageError=UnidentifiedImageError)


MISSING = stand_in()
