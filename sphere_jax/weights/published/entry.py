"""What the catalogue holds of a published network.

Addresses and licences are those that the authors published when this was written; nothing was
downloaded by us except what is on a package index. A checksum is given where one is published:
whole, or its beginning as it stands in a file's name.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

from sphere_jax.nn.functional import Network
from sphere_jax.weights.stored import Layouts

HUB = "https://huggingface.co/{}/resolve/main/{}"
META = "https://dl.fbaipublicfiles.com/{}"
RAE_HOME = "nyu-visionx/RAE-collections"


@dataclasses.dataclass(frozen=True)
class File:
    """A file of weights: at an address, or in a Python package that brings it."""

    url: str = ""
    sha256: str = ""  # or its beginning
    package: str = ""  # name to install, pinned
    inside: str = ""  # path from where packages are installed

    @property
    def name(self) -> str:
        return (self.url or self.inside).rsplit("/", 1)[-1]


@dataclasses.dataclass(frozen=True)
class Published:
    """One network.

    about: what it is, in words. parameters: numbers that a converted file holds.
    module: called with rngs and dtype. files: empty where a licence has to be accepted first, at
    `home`. parameterizations: of a generator, what networks of this layout predict, in the terms
    of `models.parameterization`; the first one is as published.
    """

    group: str
    name: str
    about: str
    parameters: int
    module: Callable[..., nnx.Module]
    layouts: Layouts
    home: str
    licence: str
    files: tuple[File, ...] = ()
    parameterizations: tuple[str, ...] = ()

    def network(self, **options) -> Network:
        """The network as pure functions; `options` go to its module (a dtype), and are hashable.
        Equal ones give the same object, so what is compiled for it is compiled once in a process.
        """
        return _network(self, tuple(sorted(options.items())))


@functools.cache
def _network(entry: Published, options: tuple[tuple[str, Any], ...]) -> Network:
    return Network(lambda rngs: entry.module(rngs=rngs, **dict(options)))


def hub(repository: str, *names: str) -> tuple[File, ...]:
    """Files of a repository of the Hugging Face hub."""
    return tuple(File(HUB.format(repository, name)) for name in names)
