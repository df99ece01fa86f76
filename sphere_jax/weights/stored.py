"""Weights for a network from a file: one that `sphere_jax.convert` wrote, or a published one.

A converted file is .safetensors with our own names ("encoder/convs/0/kernel"), the name of its
network and a fingerprint of its content, which each process checks first. Its leaves are read block
by block, straight to the devices that hold them; a published file passes through the host's memory.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sphere_jax.common import files, fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.nn.functional import Network, Networks, Params
from sphere_jax.weights import lookalikes
from sphere_jax.weights.opening import StoredTensors, check_regular, open_safetensors, open_tensors
from sphere_jax.weights.tensors import Layout, Source, convert, fit, named_leaves, path_name

FORMAT = "sphere_jax weights 1"
TRAINED_AS = "trained_as"  # key of the metadata
Layouts = Callable[[Network], list[Layout]]


@dataclasses.dataclass(frozen=True)
class StoredLeaf:
    """A leaf in a converted file: float32 blocks of it are read as they are indexed."""

    shape: tuple[int, ...]
    block: Callable[[Any], np.ndarray]
    dtype = np.dtype(np.float32)

    def __getitem__(self, index) -> np.ndarray:
        return np.asarray(self.block(index), np.float32)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[...].astype(dtype or np.float32)


def write_weights(
    path: str | os.PathLike,
    params: Params,
    network: str,
    source: str,
    trained_as: dict[str, Any] | None = None,
) -> str:
    """Writes a converted file, whole or not at all, and returns its fingerprint.

    `network` is its name in the catalogue and `source` is where the weights are from. `trained_as`
    is how they were trained here (`runs.provenance`), ready for JSON.

    Raises:
      UserError: the file cannot be written.
    """
    tensors = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
    found = fingerprint(tensors)
    metadata = {"format": FORMAT, "network": network, "source": source, "fingerprint": found}
    write_safetensors(path, tensors, metadata | as_metadata(trained_as))
    return found


def as_metadata(trained_as: dict[str, Any] | None) -> dict[str, str]:
    """The entry of a file's metadata that `trained_as` reads."""
    return {} if trained_as is None else {TRAINED_AS: json.dumps(trained_as, sort_keys=True)}


def trained_as(path: str | os.PathLike) -> dict[str, Any]:
    """How the weights in a file were trained, as it was given to `write_weights` or `as_metadata`;
    {} where that is not known.

    Raises:
      UserError: the file cannot be read.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        metadata = open_safetensors(path).metadata() or {}
        return dict(json.loads(metadata.get(TRAINED_AS, "{}")))
    except ValueError as error:
        raise UserError(f"{path} does not say how it was trained ({error}).") from error


def write_safetensors(path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Raises UserError if the file cannot be written; a reader never sees half of it."""

    def fill(temporary: Path) -> None:
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        temporary.chmod(0o644)  # safetensors makes files that only their owner reads

    files.write_whole(path, fill, alone=True)  # safetensors writes to a temporary file of its own


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """Of names, types, shapes and values; a scalar counts as of shape (1,)."""
    pairs = ((name, np.ascontiguousarray(tensors[name])) for name in sorted(tensors))
    return fingerprints.of_arrays(pairs, header="{name} {dtype} {shape}\n")


def fingerprint_of(path: str | os.PathLike) -> str:
    """That of a converted file's content; of a run folder, that of the weights in it; of any other
    file, that of its bytes.

    Raises:
      UserError: the file cannot be read.
    """
    if is_run_folder(path):
        return _fingerprint_of_run(Path(path))
    metadata = _readable(path)
    if metadata:
        return metadata["fingerprint"]
    try:
        check_regular(Path(path))
    except ValueError as error:
        raise UserError(f"{error}.") from error
    return fingerprints.of_file(path)


def is_run_folder(path: str | os.PathLike) -> bool:
    return (Path(path) / "config.json").is_file() and (Path(path) / "stages").is_dir()


def _fingerprint_of_run(folder: Path) -> str:
    """Of the checksums of its newest checkpoints, and of the files that its stages depend on."""
    found = []
    try:
        for record in sorted((folder / "stages").glob("*.json")):
            depends = json.loads(record.read_text())["depends"]
            files = {key: value for key, value in depends.items() if key.endswith(" fingerprint")}
            checksums = (folder / "checkpoints" / f"{record.stem}.crc32").glob("*.json")
            newest = max(checksums, key=lambda file: int(file.stem))
            found.append([record.stem, files, json.loads(newest.read_text())])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is not the folder of a finished run ({error}).") from error
    if not found:
        raise UserError(f"{folder} is not the folder of a finished run (it has no stage).")
    return fingerprints.of_text(json.dumps(found, sort_keys=True))


def parts_of(path: str | os.PathLike) -> set[str]:
    """The parts of a file with several networks of a run, as "decoder"; of others, what their names
    begin with. Raises UserError for a file that `write_weights` did not write."""
    if _readable(path) is None:
        raise UserError(f"{path} was not written by sphere_jax.convert; convert it first.")
    return {name.partition("/")[0] for name in open_tensors(path)}


def no_layouts(network: Network) -> list[Layout]:
    """Of networks that nobody else publishes."""
    return []


def network_of(path: str | os.PathLike) -> str:
    """The name of the network in a converted file, "" for any other file.

    Raises:
      UserError: the file cannot be read.
    """
    metadata = _readable(path)
    return metadata["network"] if metadata else ""


def load_weights(
    path: str | os.PathLike, name: str | None, network: Network, layouts: Layouts, part: str = ""
) -> Params:
    """The parameters of `network`: `StoredLeaf`s of a converted file, else numpy arrays, float32.

    `name` is what the network is called in the catalogue, or None for one that is not there;
    `layouts` are its published ones. Of a file that holds several networks of a run, the one of
    `part` is read.

    Raises:
      UserError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    try:
        metadata = _metadata(path)
        if metadata is None:
            _check_identity(path, name)
            tensors, known = open_tensors(path), layouts(network)
            if not known:
                raise ValueError(
                    "nobody else publishes this network, and sphere_jax did not write it"
                )
            return convert(tensors, known, network)
        if name is not None and metadata["network"] != name:
            raise ValueError(f"it holds '{metadata['network']}'")
        return _stored(path, metadata, network, part)
    except ValueError as error:
        owner = "config.model" if name is None else f"'{name}'"
        raise UserError(
            f"{path} does not give the weights of {owner}: {error}. "
            "See python -m sphere_jax.convert --list."
        ) from error


def _check_identity(path: Path, name: str | None) -> None:
    """Raises ValueError for a published file that may hold another network of the same tensors."""
    if name is None or lookalikes.identified(name, [path]):
        return
    if reason := lookalikes.unidentified(name):
        raise ValueError(
            f"{reason}; convert it with python -m sphere_jax.convert --network {name} "
            f"--confirm={name} if you know that it is"
        )


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """A file with the parameters of `network`; `name` and `layouts` are those of `load_weights`.

    option: the key that gives its path, for messages about one that is empty.
    part: `path` may be the folder of a run, which `runs.network_files` reads: then the artifact of
    the run, or "" where the parameters are several artifacts by their names.
    """

    path: str
    name: str | None
    network: Network | Networks
    layouts: Layouts
    option: str = ""
    part: str = ""

    def check_given(self) -> None:
        """Raises UserError without a path."""
        if not self.path:
            raise UserError(
                f"{self.option} is empty; give it the file that python -m sphere_jax.convert "
                f"--network {self.name} --fetch --out F.safetensors writes."
            )

    def load(self) -> Params:
        """Raises UserError as `load_weights` does."""
        self.check_given()
        return load_weights(self.path, self.name, self.network, self.layouts, self.part)


def _stored(path: Path, metadata: dict[str, str], network: Network, part: str) -> Params:
    shapes = network.shapes
    tensors = open_tensors(path)
    prefix = f"{part}/" if part and any(name.startswith(f"{part}/") for name in tensors) else ""
    inside = {name for name in tensors if name.startswith(prefix)}
    own = Layout("sphere_jax", {name: Source(f"{prefix}{name}") for name in named_leaves(shapes)})
    fit(StoredTensors({name: tensors.entries[name] for name in inside}), [own], network)
    if fingerprint(tensors) != metadata["fingerprint"]:
        raise ValueError(
            "its content does not have the fingerprint in its header; convert it again"
        )
    file = open_safetensors(path)

    def leaf(key, like):
        name = f"{prefix}{path_name(key)}"
        block = file.get_slice(name).__getitem__ if like.shape else lambda _: file.get_tensor(name)
        return StoredLeaf(like.shape, block)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def _metadata(path: Path) -> dict[str, str] | None:
    """What `write_weights` wrote there, or None if another program wrote the file.

    Raises ValueError if it cannot be read.
    """
    if path.suffix != ".safetensors":
        return None
    metadata = open_safetensors(path).metadata() or {}
    if metadata.get("format") != FORMAT:
        return None
    if not {"network", "fingerprint"} <= metadata.keys():
        raise ValueError(f"{path} does not name the network that it holds; convert it again")
    return metadata


def _readable(path: str | os.PathLike) -> dict[str, str] | None:
    try:
        return _metadata(Path(path))
    except ValueError as error:
        raise UserError(f"{error}.") from error
