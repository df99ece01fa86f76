"""Which file of weights is for which feature network."""

import os
from collections.abc import Collection, Iterable

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import cache_folder
from sphere_jax.evaluation.features.base import FeatureNetwork, Features
from sphere_jax.weights.stored import network_of

Weights = str | os.PathLike | Iterable[str | os.PathLike]


def load_networks(names: Collection[str], weights: Weights = ()) -> dict[str, Features]:
    """The named networks with their weights, for images of any size.

    A file that `sphere_jax.convert` wrote says which network it is of. A single file as published
    is that of the only network. Without a file, `NAME.safetensors` in the cache folder of weights
    is read.

    Raises:
      UserError: a network has no weights, or a file is of none of them.
    """
    files = [weights] if isinstance(weights, (str, os.PathLike)) else list(weights)
    kinds = {
        name: plugins.find("evaluation.features", "FEATURES", name, "features")
        for name in sorted(names)
    }
    loaded = {name: kind.load(_file(kind, files, kinds)) for name, kind in kinds.items()}
    return loaded


def _file(kind: FeatureNetwork, files: list, kinds: dict[str, FeatureNetwork]) -> str | os.PathLike:
    if not kind.needs_weights:
        raise UserError(
            f"{kind.name} is trained on a data set with classes; python -m sphere_jax.evaluate "
            "without --metrics scores with it."
        )
    held = {network_of(file): file for file in files}
    if kind.name in held:
        return held[kind.name]
    if len(files) == len(kinds) == 1 and "" in held:
        return held[""]
    cached = cache_folder("weights") / f"{kind.name}.safetensors"
    if cached.is_file():
        return cached
    raise UserError(
        f"The weights of {kind.name} are missing; give their file (--pretrained), which python -m "
        f"sphere_jax.convert --network {kind.name} --fetch --out {cached.name} writes, or put it "
        f"at {cached}."
    )
