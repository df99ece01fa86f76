"""Which file of weights is for which feature network."""

import os
from collections.abc import Collection, Iterable, Sequence

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import cache_folder
from sphere_jax.evaluation.features.base import Features
from sphere_jax.weights.stored import network_of

Weights = str | os.PathLike | Iterable[str | os.PathLike]


def load_networks(names: Collection[str], weights: Weights = ()) -> dict[str, Features]:
    """The named networks with their weights, for images of any size.

    A file that `sphere_jax.convert` wrote says which network it is of. A single file as published
    is that of the only network. Without a file, `NAME.safetensors` in the cache folder of weights
    is read.

    Raises:
      UserError: networks have no weights (all of them are named), or a file is of none of them.
    """
    files = files_of(weights)
    kinds = {
        name: plugins.find("evaluation.features", "FEATURES", name, "features")
        for name in sorted(names)
    }
    for kind in kinds.values():
        if not kind.needs_weights:
            raise UserError(
                f"{kind.name} is trained on a data set with classes; python -m "
                "sphere_jax.evaluate without --metrics scores with it."
            )
    needed = list(dict.fromkeys(kind.weights for kind in kinds.values()))
    found = files_by_name(needed, files, only=len(needed) == 1)
    return {name: kind.load(found[kind.weights]) for name, kind in kinds.items()}


def files_of(weights: Weights) -> list[str | os.PathLike]:
    """One file, or several, as a list."""
    return [weights] if isinstance(weights, (str, os.PathLike)) else list(weights)


def files_by_name(
    names: Sequence[str], files: Sequence[str | os.PathLike], only: bool
) -> dict[str, str | os.PathLike]:
    """The file of each network of the catalogue: among `files`, else in the cache folder; a single
    file as published is taken where it is the `only` network that is needed.

    Raises:
      UserError: some have none; all of them are named.
    """
    folder, found = cache_folder("weights"), {network_of(file): file for file in files}
    if only and len(files) == 1 and "" in found:
        found |= {name: found[""] for name in names}
    cached = {name: folder / f"{name}.safetensors" for name in names}
    found = {name: file for name, file in cached.items() if file.is_file()} | found
    if missing := [name for name in names if name not in found]:
        one = missing[0]
        raise UserError(
            f"The weights of {' and of '.join(missing)} are missing; give their files "
            f"(--pretrained), which python -m sphere_jax.convert --network {one} --fetch --out "
            f"{one}.safetensors writes, or put them into {folder}."
        )
    return {name: found[name] for name in names}
