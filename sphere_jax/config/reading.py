"""A config file's dictionary, read once, checked once, then frozen.

A config file (`configs/*.py`) returns an `ml_collections.ConfigDict`; `read_config` turns it into
the dataclasses of `options` and says, in one sentence, what is wrong with it. Library code sees
only the dataclasses.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from sphere_jax.common.errors import UserError
from sphere_jax.config.checks import check_together
from sphere_jax.config.options import (
    SAMPLERS,
    STAGES,
    Config,
    FlowSampler,
    Sampler,
    Stage,
)


def read_config(raw: Mapping[str, Any]) -> Config:
    """The frozen, checked form of a config file's dictionary.

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
        if stages.count(name) > 1 or name in known:
            raise UserError(f"config.stages must name groups of its own, each once; not '{name}'.")
        if name not in raw:
            raise UserError(f"config.stages names '{name}' but there is no group config.{name}.")
        if not isinstance(raw[name], Mapping):
            raise UserError(f"config.{name} must be a group of values, not {raw[name]!r}.")
        group = dict(raw.pop(name))
        method = group.get("method", name)
        if method not in STAGES:
            raise UserError(_unknown(f"config.{name}.method", method, STAGES))
        groups[name] = read_group(STAGES[method], group | {"method": method}, f"config.{name}")
    for name in [k for k in raw if _is_stage(k, raw[k])]:
        raw.pop(name)  # a stage group that config.stages leaves out is not an error
    for key in raw:
        if key not in known:
            raise UserError(_unknown("config", key, [*known, *groups]))
    sampler = _value("config.sampler", raw.pop("sampler", {}), sampler)
    config = read_group(Config, raw | {"stages": stages}, "config")
    config = dataclasses.replace(config, groups=groups, sampler=sampler)
    check_together(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dictionary, the inverse of `read_config`."""
    plain = dataclasses.asdict(config)
    return {"stages": list(plain.pop("stages")), **plain.pop("groups"), **plain}


def type_of(raw: Mapping[str, Any], path: list[str]) -> Any:
    """The type of the option at `path` (["flow", "steps"]) of a config file's dictionary.

    Raises:
      UserError: there is no such option (with the nearest known name).
    """
    hint, where, group = Config, "config", raw
    for key in path:
        if not dataclasses.is_dataclass(hint):
            raise UserError(f"{where} is a value, not a group.")
        hints = typing.get_type_hints(hint)
        if hint is Config:
            stages = {k: _stage_type(k, value) for k, value in raw.items() if _is_stage(k, value)}
            hints = {name: hints[name] for name in _known_groups()} | stages
            hints["sampler"] = _sampler_type(raw, raw.get("stages", ()))
        if key not in hints:
            raise UserError(_unknown(where, key, hints))
        group = group.get(key, {}) if isinstance(group, Mapping) else {}
        hint, where = _kind(hints[key], group, f"{where}.{key}"), f"{where}.{key}"
    return hint


def _known_groups() -> list[str]:
    """What a config has besides its stages."""
    return [field.name for field in dataclasses.fields(Config) if field.name != "groups"]


def _is_stage(name: str, group: Any) -> bool:
    return isinstance(group, Mapping) and ("method" in group or name in STAGES)


def _stage_type(name: str, group: Mapping[str, Any]) -> type[Stage]:
    return STAGES.get(group.get("method", name), Stage)


def _sampler_type(raw: Mapping[str, Any], stages) -> type[Sampler]:
    """Of the last stage that generates, or of one that `stages` leaves out."""
    named = [name for name in (*raw, *stages) if _is_stage(name, raw.get(name))]
    methods = [raw[name].get("method", name) for name in named]
    return next((SAMPLERS[m] for m in reversed(methods) if m in SAMPLERS), FlowSampler)


def read_group(cls, raw: Mapping[str, Any], where: str):
    """A dataclass of options from its group. Raises UserError as `read_config` does."""
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in hints:
            raise UserError(_unknown(where, key, hints))
    values = {}
    for field in dataclasses.fields(cls):
        if field.name not in raw:
            continue
        name = f"{where}.{field.name}"
        value = _value(name, raw[field.name], hints[field.name])
        low, high = field.metadata.get("low"), field.metadata.get("high")
        if low is not None and value < low:
            raise UserError(f"{name}={value} must be at least {low}.")
        if high is not None and value > high:
            raise UserError(f"{name}={value} must be at most {high}.")
        values[field.name] = value
    return cls(**values)


def _kind(hint: Any, group: Any, where: str) -> Any:
    """Of a union of dataclasses, the one whose `name` the group gives (the first by default).

    Raises UserError for a name that no kind has, and for an option that only another kind has.
    """
    if not isinstance(hint, types.UnionType) or not isinstance(group, Mapping):
        return typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    kinds = {kind.name: kind for kind in typing.get_args(hint)}
    name = group.get("name", next(iter(kinds)))
    if name not in kinds:
        choices = ", ".join(map(repr, kinds))
        raise UserError(f"{where}.name={name!r} must be one of {choices}.")
    own = typing.get_type_hints(kinds[name])
    for key in group:
        others = [n for n, kind in kinds.items() if key in typing.get_type_hints(kind)]
        if key not in own and others:
            raise UserError(f"{where}.{key} needs {where}.name='{others[0]}', not '{name}'.")
    return kinds[name]


def _value(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type that `hint` asks for."""
    hint = _kind(hint, value, name)
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{name} must be a group of values, not {value!r}.")
        return read_group(hint, value, name)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices or type(value) not in map(type, choices):
            raise UserError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}.")
        return value
    if origin is tuple:
        (kind, _) = typing.get_args(hint)
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise UserError(f"{name} must be a tuple of {kind.__name__}, not {value!r}.")
        return tuple(_value(f"{name}[{i}]", v, kind) for i, v in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UserError(f"{name} must be {hint.__name__}, not {value!r}.")
    if hint is float and not math.isfinite(value):
        raise UserError(f"{name}={value} must be a finite number.")
    return value


def _unknown(where: str, key: str, known) -> str:
    return f"{where} has no '{key}'; {nearest(key, known)}"


def nearest(name: str, known) -> str:
    """A hint for a name that is not among the known ones."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}."
