"""Statistics in files: those of pytorch-fid and ADM, and ours, which say how they were made."""

import json
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import write_npz
from sphere_jax.data.npz_files import read_npz
from sphere_jax.evaluation.statistics import PROTOCOL, Statistics, protocol_in

Stored = dict[tuple[str, str], Statistics]  # by network and output


def stored_in(
    path: str | os.PathLike, held: Collection[str]
) -> tuple[Stored, dict[str, Any] | None]:
    """The statistics of an `.npz` whose arrays are named `held`, and how they were made.

    A file of another tool does not say the latter (None), nor which network it was: its `mu` is
    taken for that of every network that says so (`FeatureNetwork.stored_as`).

    Raises:
      UserError: the file is damaged, or its arrays are no mean and covariance.
    """
    if not any(name.startswith("mu") for name in held):
        return {}, None
    protocol = protocol_in(read_npz(path, wanted=(PROTOCOL,)), path)
    found: Stored = {}
    for network, output, suffix in _outputs(protocol):
        names = tuple(f"{key}{suffix}" for key in ("mu", "sigma", "n"))
        if names[0] in held and names[1] in held:
            try:
                arrays = read_npz(path, wanted=names)
                found[network, output] = Statistics.from_arrays(arrays, suffix)
            except ValueError as error:
                raise UserError(f"{path}: {error}") from error
    return found, protocol


def _outputs(protocol: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Network, output and suffix of the statistics that a file may hold."""
    if protocol:
        made = protocol.get("networks", {}).items()
        pairs = [(name, output) for name, network in made for output in network["outputs"]]
        return [(*pair, suffix_of(*pair)) for pair in pairs]
    names = plugins.known("evaluation.features", "FEATURES")
    return [(name, *stored) for name in names for stored in stored_as(name).items()]


def suffix_of(network: str, output: str) -> str:
    """What the names of an output's arrays end in: as other tools have it, where they do."""
    return stored_as(network).get(output, f"_{network}_{output}")


def stored_as(network: str) -> Mapping[str, str]:
    """`FeatureNetwork.stored_as` of a network."""
    return plugins.find("evaluation.features", "FEATURES", network, "features").stored_as


def write_statistics(
    path: str | os.PathLike, statistics: Stored, protocol: Mapping[str, Any]
) -> None:
    """An `.npz` that `stored_in` reads, and other tools where the network is theirs: `mu`, `sigma`
    and `n` of each output, and `protocol`, whose `networks` have their `outputs`.

    Raises:
      UserError: two networks have the same names for their statistics, or nothing can be written.
    """
    arrays: dict[str, np.ndarray] = {PROTOCOL: np.asarray(json.dumps(protocol))}
    for (network, output), found in statistics.items():
        named = found.arrays(suffix_of(network, output))
        if taken := named.keys() & arrays.keys():
            raise UserError(
                f"{network} stores its statistics as {sorted(taken)[0]}, as another network does; "
                "write two files."
            )
        arrays |= named
    write_npz(path, arrays)
