"""Every option with its type, default, range and meaning, read from the dataclasses: the page
docs/options.md, `main --help=GROUP`, and the sampler options in the help of commands."""

import dataclasses
import difflib
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError, shortened
from sphere_jax.config.options import Config, OptimizerOptions, SamplerOptions, StageOptions
from sphere_jax.config.reading import METHODS

PAGE = """\
# Options

Every option of a config, printed by `python -m sphere_jax.main --help=all`. One group alone is
printed by `--help=GROUP`, say `--help=flow`, `--help=model.sit` or `--help=sampler.flow`.

`config.STAGE` is a group named in `config.stages`. Its `method` is one of those below, by default
that of its own name. A section of one method, tokenizer, network or sampler lists what it has
besides the section before, or has with another default. In paths, `~` and environment variables are
expanded.
"""
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of options: where it stands in a config, what it is, its dataclass, and the part of
    it that another section has."""

    where: str
    about: str
    options: type
    base: type | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One option, as text."""

    name: str
    type: str
    default: str
    range: str
    help: str


def sections() -> dict[str, Section]:
    """All groups by the names that `--help=GROUP` takes, in the order of the page."""
    found = {"config": Section("config", "A whole run.", Config)}
    for field in dataclasses.fields(Config):
        group, where = field.name, f"config.{field.name}"
        if "kinds" in field.metadata:
            package, attribute, _ = field.metadata["kinds"]
            known = plugins.known(package, attribute)
            kinds = {n: plugins.find(package, attribute, n, where).Options for n in known}
            base = _common(kinds.values())
            found |= _plugged(group, where, "name", base, kinds)
        elif group == "groups":
            kinds = {name: method.Options for name, method in methods().items()}
            found |= _plugged("stage", "config.STAGE", "method", StageOptions, kinds)
            about = _about(OptimizerOptions)
            found["optimizer"] = Section("config.STAGE.optimizer", about, OptimizerOptions)
        elif group == "sampler":
            kinds = {n: m.SamplerOptions for n, m in methods().items() if m.SamplerOptions}
            found |= _plugged(group, where, "method", SamplerOptions, kinds)
        elif dataclasses.is_dataclass(field.default):
            options = type(field.default)
            found[group] = Section(where, _about(options), options)
    return found


def _plugged(
    group: str, where: str, key: str, base: type, kinds: Mapping[str, type]
) -> dict[str, Section]:
    """The sections of a group that comes in kinds: what all have, then one a kind."""
    found = {group: Section(where, _about(base), base)}
    for name, options in kinds.items():
        short = name if group == "stage" else f"{group}.{name}"
        title = f'{where} with {key}="{name}"'
        found[short] = Section(title, _about(options, base), options, base)
    return found


def methods() -> dict[str, Any]:
    """The methods of this package by their names."""
    return {name: plugins.find(*METHODS, name, "config") for name in plugins.known(*METHODS)}


def page() -> str:
    """docs/options.md."""
    parts = [PAGE]
    for section in sections().values():
        parts.append(f"## {section.where}\n\n{section.about}\n")
        table = [
            f"| `{row.name}` | {row.type} | {row.default} | {row.range} | {_cell(row.help)} |"
            for row in _own(section)
        ]
        if table:
            head = "| option | type | default | range | meaning |\n| --- | --- | --- | --- | --- |"
            parts.append("\n".join([head, *table]) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def help_of(name: str) -> str:
    """The options of one group, or the page for "all". Raises UserError for an unknown group."""
    if name == ALL:
        return page().rstrip()
    known, name = sections(), name.removeprefix("config.")
    if name.endswith(".optimizer"):
        name = "optimizer"
    if name not in known:
        short, close = shortened(name), difflib.get_close_matches(name, known, 1)
        near = f"did you mean '{close[0]}'?" if close else "--help=all has all of them."
        raise UserError(f"--help={short} is no group of options; {near}")
    section = known[name]
    lines = [f"{section.where}: {section.about}"]
    for _, row in _rows(section.options):
        default = f" = {row.default.strip('`')}" if row.default else ""
        allowed = f", {row.range.replace('`', '')}" if row.range else ""
        lines += [f"  {row.name}: {row.type}{default}{allowed}", f"      {row.help}"]
    others = [other for other in known if other.startswith(f"{name}.")]
    if others:
        lines.append(f"more by --help=NAME: {', '.join(others)}")
    return "\n".join(lines)


def sampler_help(
    chosen: Callable[[Any], bool],
    published: Callable[[Any], Mapping[str, Any]],
    run: Config | None = None,
) -> str:
    """Flags of the sampler options of a run; without one, of all methods that are `chosen`.

    `published(method)` are a command's own defaults, which go before those of the run.
    """
    if run is not None:
        every = {field.name for field in dataclasses.fields(run.sampler)}
        values = {name: getattr(run.sampler, name) for name in every}
        values |= published(run.method(run.generator))
        return "\n".join(_flag_lines(type(run.sampler), every, values))
    found = {n: m for n, m in methods().items() if m.SamplerOptions and chosen(m)}
    defaults = [published(method).items() for method in found.values()]
    same = dict(item for item in defaults[0] if all(item in others for others in defaults))
    base = {field.name for field in dataclasses.fields(SamplerOptions)}
    lines = list(_flag_lines(SamplerOptions, base, same))
    for name, method in found.items():
        own = {field.name for field in dataclasses.fields(method.SamplerOptions)} - base
        values = published(method)
        lines += [f"of {name} runs:", *_flag_lines(method.SamplerOptions, own, values)]
    return "\n".join(lines)


def sampler_names() -> set[str]:
    """Names of the sampler options of all methods of this package."""
    every = [method.SamplerOptions for method in methods().values() if method.SamplerOptions]
    return {field.name for options in every for field in dataclasses.fields(options)}


def _flag_lines(options: type, names: Collection[str], values: Mapping[str, Any]) -> Iterator[str]:
    for field, row in _rows(options):
        if field.name in names:
            flag = "batch" if field.name == "batch_size" else field.name
            allowed = f" ({row.range.replace('`', '')})" if row.range else ""
            value = values.get(field.name, "")
            default = f" (default {value})" if value != "" else ""
            yield f"  --{flag:<20}{row.help}{allowed}{default}"


def _common(kinds: Collection[type]) -> type:
    """The nearest class that all of some dataclasses extend."""
    first, *others = kinds
    return next(c for c in first.__mro__ if all(issubclass(other, c) for other in others))


def _about(options: type, base: type | None = None) -> str:
    """The first paragraph about some options: of their docstring, or of a plug-in's file."""
    text = inspect.getmodule(options).__doc__ if base else options.__doc__
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _own(section: Section) -> Iterator[Row]:
    """The options that the section's base lacks, or has with another default or meaning."""
    base = dataclasses.fields(section.base) if section.base else ()
    known = {field.name: field for field in base}
    for field, row in _rows(section.options):
        named = field.name in known and field.name in ("name", "method")
        if not named and known.get(field.name) is not field:
            yield row


def _rows(options: type) -> Iterator[tuple[dataclasses.Field, Row]]:
    """Every option of a dataclass, but not its groups."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        about, hint = field.metadata, hints[field.name]
        if "help" not in about:
            continue
        default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        row = Row(field.name, _type(hint, about), default, _range(hint, about), about["help"])
        yield field, row


def _type(hint: Any, about: Mapping[str, Any]) -> str:
    if about["path"]:
        return "path"
    if about["plugin"]:
        return "name"
    if typing.get_origin(hint) is typing.Literal:
        return type(typing.get_args(hint)[0]).__name__
    if typing.get_origin(hint) is tuple:
        return f"tuple of {typing.get_args(hint)[0].__name__}"
    return hint.__name__


def _range(hint: Any, about: Mapping[str, Any]) -> str:
    low, high = about["low"], about["high"]
    if about["plugin"]:
        return ", ".join(f"`{name}`" for name in plugins.known(*about["plugin"]))
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(
            f"`{choice}`" if choice != "" else "`''`" for choice in typing.get_args(hint)
        )
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""
