"""What an option is: a field of a frozen dataclass, with its range and its meaning."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal


def option(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    help: str = "",
    *,
    file: bool = False,
    path: bool = False,
    moves: Literal["weights", "samples", "nothing"] = "weights",
    swept: bool = False,
    formerly: str = "",
    former_values: Mapping[Any, Any] | None = None,
    plugin: tuple[str, str] | None = None,
):
    """A dataclass field.

    low, high: its inclusive range. help: its meaning, with the unit. file: it names a file of
    weights; its content counts, not its path. path: it names another file or folder; in both, `~`
    and environment variables are expanded. moves: what another value changes; what moves nothing,
    or samples alone, may change between two starts of a run. swept: `evaluate --sweep`
    may vary it. formerly: its name in older configs. former_values: values in older configs, and
    what they are called now. plugin: the package and attribute of the plug-in that its value names.
    """
    metadata = dict(
        low=low, high=high, help=help, file=file, path=path or file, moves=moves, swept=swept,
        formerly=formerly, former_values=former_values, plugin=plugin,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def kind(package: str, attribute: str, default: str):
    """A group of options whose type is that of the plug-in named by its `name`."""

    def fresh():
        from sphere_jax.common import plugins

        return plugins.find(package, attribute, default, "the default").Options()

    kinds = {"kinds": (package, attribute, default)}
    return dataclasses.field(default_factory=fresh, metadata=kinds)


def current_value(about: Mapping[str, Any], value: Any) -> Any:
    """That of an older config, as this version writes it; `about` is the metadata of `option`."""
    former = about.get("former_values") or {}
    return next((new for old, new in former.items() if old is value), value)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One option of a config: its value, and the metadata of `option`."""

    value: Any
    about: Mapping[str, Any]

    @property
    def file(self) -> bool:
        return self.about.get("file", False)

    @property
    def moves(self) -> str:
        return self.about.get("moves", "weights")


def leaves(prefix: str, group: Any) -> Iterator[tuple[str, Leaf]]:
    """`("config.flow.steps", Leaf)` of every option in a dataclass of options, groups opened."""
    for field in dataclasses.fields(group):
        value, key = getattr(group, field.name), f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(key, value)
        else:
            yield key, Leaf(value, field.metadata)
