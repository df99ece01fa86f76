"""Reading files that PyTorch saved, without running anything in them.

`torch.load(weights_only=True)` builds tensors. Any other object of a checkpoint (flags, paths,
configs, numbers of numpy) becomes an `Inert` one: its class is neither imported nor called.
"""

import pickle
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

LEGACY_PICKLES = 4  # at the start of a file of older versions: the last one is the content


class Inert:
    """In place of an object of another class than tensors and plain containers."""

    kind = "object"

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


class AsDict:
    """In place of a class of dicts: a plain one."""

    def __new__(cls, *args):
        return OrderedDict()


def load(path: Path) -> Any:
    """What the file holds. Raises ValueError, a sentence about it without its end, if PyTorch is
    missing or the file is not one of its kind."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is a PyTorch file, and reading it needs PyTorch, once: pip install torch (or "
            "take the weights as .safetensors)"
        ) from error
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ValueError(f"{path} needs a newer PyTorch to be read safely: pip install -U torch")
    try:
        zipped = zipfile.is_zipfile(path)
        classes = [(_stand_in(name), name) for name in _names(path, zipped)]
        with torch.serialization.safe_globals(classes):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except _Unreadable as error:
        raise ValueError(f"{path} {error}") from error
    except pickle.UnpicklingError as error:  # what PyTorch advises then is not safe
        raise ValueError(
            f"{path} is damaged, or holds objects that are not read safely; ask for it as "
            ".safetensors, or save model.state_dict() where it was made"
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is not a whole PyTorch file; get it again") from error


def is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def array(name: str, tensor) -> np.ndarray:
    """A tensor's numbers. Raises ValueError for one that numpy has no array for."""
    import torch

    if tensor.is_meta:
        raise ValueError(f"tensor '{name}' is on PyTorch's meta device: the file has no numbers")
    if tensor.layout != torch.strided:
        raise ValueError(f"tensor '{name}' is sparse; save tensor.to_dense() where it was made")
    if tensor.is_quantized:
        raise ValueError(
            f"tensor '{name}' is quantised; take the file in float32, bfloat16 or float16"
        )
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy knows it by ml_dtypes only
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"tensor '{name}' holds {kind}; take the file in float32, bfloat16 or float16"
        ) from error


class _Unreadable(Exception):
    """The end of a sentence that begins with the file."""


def _names(path: Path, zipped: bool) -> set[str]:
    """The full names of all classes and functions that a file's pickle mentions."""
    if zipped:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
                raise _Unreadable(
                    "is a TorchScript program, which is not run; ask for its state_dict"
                )
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise _Unreadable("was compressed after it was saved; get it as it was published")
            pickles = [e for e in entries if Path(e.filename).name == "data.pkl"]
            if not pickles:
                raise _Unreadable("is a zip file of another program than PyTorch")
            with archive.open(pickles[0]) as file:
                return _mentioned(file)
    with path.open("rb") as file:
        return {name for _ in range(LEGACY_PICKLES) for name in _mentioned(file)}


def _mentioned(file) -> set[str]:
    """Protocol 2 has the names of Python 2, which PyTorch translates."""
    found = set()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            module, name = argument.split(" ")
            now = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            found.add(".".join(now))
    return found


def _stand_in(name: str) -> type:
    last = name.rpartition(".")[2]
    if last.lower().endswith("dict"):  # defaultdict, EasyDict, ConfigDict
        return type(last, (AsDict,), {})
    return type(last, (Inert,), {"kind": name})
