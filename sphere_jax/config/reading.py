"""A config file's dictionary, read once, checked once, then frozen.

A config file (`configs/*.py`) returns an `ml_collections.ConfigDict`; `read_config` turns it into
the dataclasses of `options.py` and of the plug-ins that it names, and reports errors in one
sentence. Library code sees only the dataclasses.
"""

import dataclasses
import math
import os
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError, quoted, shortened
from sphere_jax.common.files import expand_path
from sphere_jax.common.plugins import nearest
from sphere_jax.config.checks import check_together
from sphere_jax.config.option import current_value
from sphere_jax.config.options import Config, SamplerOptions, StageOptions

METHODS = ("methods", "METHOD")


def read_config(raw: Mapping[str, Any], stored: bool = False) -> Config:
    """The frozen, checked form of a config file's dictionary.

    `stored` is for the config that a run folder keeps: keys that were renamed since are translated,
    and its paths are as they were expanded when the run started.

    Raises:
      UserError: unknown key (with the nearest known name), wrong type, value out of range, or
        values that exclude each other.
    """
    raw = dict(raw)
    stages = _value("config.stages", raw.pop("stages", ()), tuple[str, ...])
    if not stages:
        raise UserError("config.stages is empty; name at least one stage, say ('flow',).")
    groups, known = {}, _known_groups()
    sampler = _sampler_type(raw, stages)
    for name in stages:
        short = shortened(name)
        if stages.count(name) > 1 or name in known:
            raise UserError(f"config.stages must name stage groups, each once; not '{short}'.")
        if name not in raw:
            raise UserError(f"config.stages names '{short}', and there is no group of that name.")
        if not isinstance(raw[name], Mapping):
            raise UserError(f"config.{name} must be a group of values, not {quoted(raw[name])}.")
        group = dict(raw.pop(name))
        method = group.get("method", name)
        options = plugins.find(*METHODS, method, f"config.{name}.method").Options
        groups[name] = read_group(options, group | {"method": method}, f"config.{name}", stored)
    for name in [k for k in raw if _is_stage(k, raw[k])]:
        raw.pop(name)  # a stage group that config.stages leaves out is not an error
    for key in raw:
        if key not in known:
            raise UserError(_unknown("config", key, [*known, *groups]))
    drawing, shared = raw.pop("sampler", {}), [f.name for f in dataclasses.fields(SamplerOptions)]
    if stored and sampler is SamplerOptions and isinstance(drawing, Mapping):  # nothing generates
        drawing = {key: value for key, value in drawing.items() if key in shared}
    sampler = _value("config.sampler", drawing, sampler, stored)
    config = read_group(Config, raw | {"stages": stages}, "config", stored)
    config = dataclasses.replace(config, groups=groups, sampler=sampler)
    if config.generator is None:  # the sampler of a stage that is left out
        plain = SamplerOptions(**{name: getattr(sampler, name) for name in shared})
        config = dataclasses.replace(config, sampler=plain)
    check_together(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dictionary, the inverse of `read_config`."""
    plain = dataclasses.asdict(config)
    return {"stages": list(plain.pop("stages")), **plain.pop("groups"), **plain}


def option_at(raw: Mapping[str, Any], path: list[str]) -> tuple[Any, Mapping[str, Any]]:
    """Type of the option at `path` (["flow", "steps"]) of a config file's dictionary, and what
    `config.option.option` says about it.

    Raises:
      UserError: there is no such option (with the nearest known name).
    """
    hint, about, where, group = Config, {}, "config", raw
    for key in path:
        if not dataclasses.is_dataclass(hint):
            raise UserError(f"{where} is a value, not a group.")
        fields, kinds = _fields(hint), _kinds(hint)
        hints = {name: field_type for name, (field_type, _) in fields.items()}
        if hint is Config:
            stages = {k: _stage_type(k, value) for k, value in raw.items() if _is_stage(k, value)}
            hints = {name: hints[name] for name in _known_groups()} | stages
            hints["sampler"] = _sampler_type(raw, raw.get("stages", ()))
        if key not in hints:
            raise UserError(_unknown(where, key, hints))
        group = group.get(key, {}) if isinstance(group, Mapping) else {}
        where, hint, (_, about) = f"{where}.{key}", hints[key], fields.get(key, (None, {}))
        if key in kinds:
            hint = _kind(kinds[key], group, where)
    return hint, about


def read_group(cls, raw: Mapping[str, Any], where: str, stored: bool = False):
    """A dataclass of options from its group. Raises UserError as `read_config` does."""
    fields, kinds = _fields(cls), _kinds(cls)
    renamed = {about.get("formerly"): name for name, (_, about) in fields.items()}
    if stored:
        raw = {renamed.get(key, key): value for key, value in raw.items()}
    for key in raw:
        if key and key in renamed:
            raise UserError(f"{where}.{key} is called {where}.{renamed[key]} now.")
        if key not in fields:
            raise UserError(_unknown(where, key, fields))
    values = {}
    for key, (hint, about) in fields.items():
        if key not in raw:
            continue
        name, value = f"{where}.{key}", raw[key]
        if stored:
            value = current_value(about, value)
        if key in kinds:
            hint = _kind(kinds[key], value, name)
        if about.get("path"):
            value = _path(name, value, stored)
        value = _value(name, value, hint, stored)
        low, high = about.get("low"), about.get("high")
        if low is not None and value < low:
            raise UserError(f"{name}={quoted(value)} must be at least {low}.")
        if high is not None and value > high:
            raise UserError(f"{name}={quoted(value)} must be at most {high}.")
        if about.get("plugin") and value:
            plugins.find(*about["plugin"], value, name)
        values[key] = value
    return cls(**values)


def _path(name: str, value: Any, stored: bool) -> Any:
    """A path as text, expanded unless it is `stored`; another value as it is."""
    if not isinstance(value, (str, os.PathLike)) or stored:
        return value
    try:
        return expand_path(value)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _known_groups() -> list[str]:
    """The groups of a config other than its stages."""
    return [field.name for field in dataclasses.fields(Config) if field.name != "groups"]


def _is_stage(name: str, group: Any) -> bool:
    return isinstance(group, Mapping) and ("method" in group or plugins.exists(*METHODS, name))


def _stage_type(name: str, group: Mapping[str, Any]) -> type[StageOptions]:
    method = group.get("method", name)
    return plugins.find(*METHODS, method, f"config.{name}.method").Options


def _sampler_type(raw: Mapping[str, Any], stages: Iterable[str]) -> type[SamplerOptions]:
    """Of the last stage that generates, or of one that `stages` leaves out."""
    found = SamplerOptions
    for name in (*raw, *stages):
        group = raw.get(name)
        if not _is_stage(name, group):
            continue
        method = group.get("method", name)
        if name in stages or plugins.exists(*METHODS, method):
            kind = plugins.find(*METHODS, method, f"config.{name}.method").SamplerOptions
            found = kind or found
    return found


def _fields(cls) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Type and metadata of every option of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {f.name: (hints[f.name], f.metadata) for f in dataclasses.fields(cls)}


def _kinds(cls) -> dict[str, tuple[str, str, str]]:
    """The groups that come in kinds: package, attribute and default name."""
    fields = dataclasses.fields(cls)
    return {f.name: f.metadata["kinds"] for f in fields if "kinds" in f.metadata}


def _kind(kinds: tuple[str, str, str], group: Any, where: str) -> Any:
    """The options of the plug-in whose name the group gives, or of the default.

    Raises UserError for a name that no plug-in has, and for an option that only another one has.
    """
    package, attribute, default = kinds
    name = group.get("name", default) if isinstance(group, Mapping) else default
    options = plugins.find(package, attribute, name, f"{where}.name").Options
    given = group if isinstance(group, Mapping) else ()
    for key in (key for key in given if key not in _names(options)):
        known = plugins.known(package, attribute)
        others = {other: plugins.find(package, attribute, other, where).Options for other in known}
        having = [f"'{other}'" for other, kind in others.items() if key in _names(kind)]
        if having:
            names = " or ".join(having)
            raise UserError(f"{where}.{key} needs {where}.name={names}, not '{name}'.")
    return options


def _names(options) -> set[str]:
    """Of all options of a group, older names too."""
    return {
        name
        for field in dataclasses.fields(options)
        for name in (field.name, field.metadata.get("formerly"))
        if name
    }


def _value(name: str, value: Any, hint: Any, stored: bool = False) -> Any:
    """`value` as the type that `hint` asks for."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{name} must be a group of values, not {quoted(value)}.")
        return read_group(hint, value, name, stored)
    if origin is Literal:
        choices = typing.get_args(hint)
        if type(value) not in map(type, choices) or value not in choices:
            known = ", ".join(map(repr, choices))
            raise UserError(f"{name}={quoted(value)} must be one of {known}.")
        return value
    if origin is tuple:
        (kind, _) = typing.get_args(hint)
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise UserError(f"{name} must be a tuple of {kind.__name__}, not {quoted(value)}.")
        return tuple(_value(f"{name}[{i}]", v, kind) for i, v in enumerate(value))
    if hint is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if type(value) is not hint:
        raise UserError(f"{name} must be {hint.__name__}, not {quoted(value)}.")
    if hint is float and not math.isfinite(value):
        raise UserError(f"{name}={value} must be a finite number.")
    return value


def _unknown(where: str, key: str, known: Iterable[str]) -> str:
    return f"{where} has no '{shortened(str(key))}'; {nearest(key, known)}"
