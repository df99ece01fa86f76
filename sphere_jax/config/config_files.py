"""A config file, `configs/*.py` or `config.json` of a run, with overrides from the command line."""

import dataclasses
import importlib.util
import json
import typing
from pathlib import Path
from typing import Any

from sphere_jax.common.errors import UserError, quoted, shortened
from sphere_jax.config.options import Config
from sphere_jax.config.reading import option_at, read_config


def load_config(path: str, overrides: list[str] = ()) -> Config:
    """The checked config of a file with overrides `--config.a.b=v`. Raises UserError.

    A `.json` is what a run folder keeps; the run is repeated with it.
    """
    if not Path(path).is_file():
        known = ", ".join(sorted(map(str, Path("configs").glob("*.py")))) or "none here"
        raise UserError(f"There is no config file '{path}'; known: {known}.")
    stored = path.endswith(".json")
    raw = _of_a_run(path) if stored else _of_a_file(path)
    for override in overrides:
        apply_override(raw, override)
    return read_config(raw, stored)


def _of_a_file(path: str) -> dict[str, Any]:
    try:
        return run_file(path, "get_config").to_dict()
    except AttributeError:
        raise UserError(f"get_config() of {path} must return a ConfigDict.") from None


def _of_a_run(path: str) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(path).read_text())["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the config.json of a run ({error}).") from error


def run_file(path: str, function: str, *arguments: Any) -> Any:
    """What a function of a Python file returns. Raises UserError for a file that does not run."""
    if not Path(path).is_file():
        raise UserError(f"There is no file '{path}'; give a Python file with {function}().")
    if not path.endswith(".py"):
        raise UserError(f"{path} must be a Python file with {function}().")
    spec = importlib.util.spec_from_file_location("sphere_jax_config_file", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, function)(*arguments)
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"{path} does not run ({kind}: {shortened(str(error))}).") from error


def apply_override(raw: dict[str, Any], argument: str) -> None:
    """Sets one value, or one that the file leaves at its default, with the type of the option."""
    name, equals, text = argument.removeprefix("--").partition("=")
    if not equals:
        raise UserError(f"--{name} needs a value: --{name}=VALUE.")
    *groups, key = path = name.split(".")[1:]
    value = parse_value(name, text.strip(), option_at(raw, path)[0])
    for part in groups:
        raw = raw.setdefault(part, {})
    raw[key] = value


def parse_value(name: str, text: str, hint: Any) -> Any:
    """`text` as a value of type `hint`; `read_config` checks its range."""
    if dataclasses.is_dataclass(hint):
        example = next(field.name for field in dataclasses.fields(hint))
        raise UserError(f"{name} is a group; set one of its values, say {name}.{example}.")
    if typing.get_origin(hint) is tuple:
        (kind, _) = typing.get_args(hint)
        parts = [part.strip() for part in text.strip("()[]").split(",")]
        return tuple(parse_value(name, part, kind) for part in parts if part)
    if typing.get_origin(hint) is typing.Literal:
        return next((c for c in typing.get_args(hint) if str(c) == _unquoted(text)), text)
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{name} must be True or False, not {quoted(text)}.")
        return text.lower() == "true"
    try:
        return _unquoted(text) if hint is str else hint(text)
    except ValueError:
        raise UserError(f"{name} must be {hint.__name__}, not {quoted(text)}.") from None


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
