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
      UserError: networks have no weights (all of them are named), or a file is of none of them.
    """
    files = [weights] if isinstance(weights, (str, os.PathLike)) else list(weights)
    kinds = {
        name: plugins.find("evaluation.features", "FEATURES", name, "features")
        for name in sorted(names)
    }
    found = {name: _file(kind, files, kinds) for name, kind in kinds.items()}
    missing = dict.fromkeys(kinds[name].weights for name, file in found.items() if file is None)
    if missing:
        folder = cache_folder("weights")
        one = next(iter(missing))
        raise UserError(
            f"The weights of {' and of '.join(missing)} are missing; give their files "
            f"(--pretrained), which python -m sphere_jax.convert --network {one} --fetch --out "
            f"{one}.safetensors writes, or put them into {folder}."
        )
    return {name: kind.load(found[name]) for name, kind in kinds.items()}


def _file(
    kind: FeatureNetwork, files: list, kinds: dict[str, FeatureNetwork]
) -> str | os.PathLike | None:
    """None where there is none."""
    if not kind.needs_weights:
        raise UserError(
            f"{kind.name} is trained on a data set with classes; python -m sphere_jax.evaluate "
            "without --metrics scores with it."
        )
    held = {network_of(file): file for file in files}
    if kind.weights in held:
        return held[kind.weights]
    if len(files) == 1 and "" in held and len({other.weights for other in kinds.values()}) == 1:
        return held[""]
    cached = cache_folder("weights") / f"{kind.weights}.safetensors"
    return cached if cached.is_file() else None
