"""A config file, `configs/*.py` or `config.json` of a run, with overrides from the command line."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sphere_jax.common.errors import UserError, quoted, shortened
from sphere_jax.common.files import expand_path
from sphere_jax.common.plugins import nearest
from sphere_jax.config.options import Config
from sphere_jax.config.reading import option_at, read_config


def load_config(path: str | os.PathLike, overrides: Iterable[str] = ()) -> Config:
    """The checked config of a file, or of one of `configs/` by its name ("mnist_slerp"), with
    overrides `--config.a.b=v`. Raises UserError.

    A `.json` is what a run folder keeps; the run is repeated with it.
    """
    path = find_file(path)
    stored = path.suffix == ".json"
    raw = _of_a_run(path) if stored else _of_a_file(path)
    for override in overrides:
        apply_override(raw, override)
    return read_config(raw, stored)


def _of_a_file(path: Path) -> dict[str, Any]:
    try:
        return run_file(path, "get_config").to_dict()
    except AttributeError:
        raise UserError(f"get_config() of {path} must return a ConfigDict.") from None


def _of_a_run(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text())["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the config.json of a run ({error}).") from error


def run_file(
    path: str | os.PathLike, function: str, *arguments: Any, folder: str = "configs"
) -> Any:
    """What a function of a Python file returns; the file may be named as in `find_file`.

    Raises UserError for a file that is not there or does not run.
    """
    path = find_file(path, folder)
    if path.suffix != ".py":
        raise UserError(f"{path} must be a Python file with {function}().")
    spec = importlib.util.spec_from_file_location("sphere_jax_config_file", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, function)(*arguments)
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"{path} does not run ({kind}: {shortened(str(error))}).") from error


def find_file(path: str | os.PathLike, folder: str = "configs") -> Path:
    """The file at `path`. A bare name is one of `folder` here, else of the package's own.

    Raises UserError, with the nearest name, if there is none.
    """
    given = Path(path)
    if given.is_file():
        return given
    places = [place for place in (Path(folder), shipped(folder)) if place]
    files = [file for place in places for file in sorted(place.glob("*.py"))]
    named = {file.stem: file for file in reversed(files)}
    if os.fspath(path) in named:
        return named[os.fspath(path)]
    if given.is_dir():
        raise UserError(f"{given} is a folder; name a file in it.")
    near = nearest(given.stem, named) if named else f"{folder}/ is not here."
    raise UserError(f"There is no file '{given}'; {near}")


def shipped(folder: str) -> Path | None:
    """configs/ or launch/ of this copy of the package: beside it in a checkout, or where pip put
    them."""
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout / folder
    try:
        files = importlib.metadata.files("sphere_jax") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    inside = f"share/sphere_jax/{folder}"
    found = (Path(file.locate()).resolve().parent for file in files)
    return next((place for place in found if place.as_posix().endswith(inside)), None)


def apply_override(raw: dict[str, Any], argument: str) -> None:
    """Sets one value, or one that the file leaves at its default, with the type of the option."""
    name, equals, text = argument.removeprefix("--").partition("=")
    if not equals:
        raise UserError(f"--{name} needs a value: --{name}=VALUE.")
    *groups, key = path = name.split(".")[1:]
    hint, about = option_at(raw, path)
    value = parse_value(name, text.strip(), hint)
    value = expand_path(value) if about.get("path") else value
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
