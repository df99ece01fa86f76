"""What all commands share: config files with overrides, and errors as one sentence."""

import argparse
import difflib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from sphere_jax.config import Config, read_config
from sphere_jax.errors import UserError
from sphere_jax.training.signals import Interrupted


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs `main(argv)`: exit code 2 and a sentence for what the user can mend, 130 for a stop."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(f"Stopped. {stop}. The same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


def parser(description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_sampler_flags(flags: argparse.ArgumentParser) -> None:
    """What `sample` and `evaluate` let a user change about sampling."""
    flags.add_argument("--steps", type=int, help="steps from noise to data")
    flags.add_argument("--solver", choices=("euler", "heun", "midpoint"))
    flags.add_argument("--guidance", type=float, help="guidance scale; 1 is off")
    flags.add_argument("--batch", type=int, dest="batch_size", help="images at a time")


def sampler_options(arguments) -> dict:
    """The sampler values that were given, under their names in the config."""
    names = ("steps", "solver", "guidance", "batch_size")
    return {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}


def parse_with_config(parser: argparse.ArgumentParser, argv: list[str]):
    """`(arguments, Config)`; `--config.a.b=v` overrides a value of the file `--config=FILE`."""
    overrides = [a for a in argv if a.startswith("--config.")]
    arguments = parser.parse_args([a for a in argv if not a.startswith("--config.")])
    return arguments, load_config(arguments.config, overrides)


def load_config(path: str, overrides: list[str] = ()) -> Config:
    """The checked config of a file with overrides `--config.a.b=v`. Raises UserError."""
    file = Path(path)
    if not file.is_file():
        known = ", ".join(sorted(map(str, Path("configs").glob("*.py")))) or "none here"
        raise UserError(f"There is no config file '{path}'; known: {known}.")
    spec = importlib.util.spec_from_file_location("sphere_jax_config_file", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"{path} does not run ({kind}: {error}); mend the file.") from error
    for override in overrides:
        _override(config, override)
    return read_config(config.to_dict())


def _override(config: ConfigDict, argument: str) -> None:
    """Sets one value, with the type that the file gave it."""
    name, equals, text = argument.removeprefix("--").partition("=")
    if not equals:
        raise UserError(f"--{name} needs a value: --{name}=VALUE.")
    *groups, key = name.split(".")[1:]
    group, where = config, "config"
    for part in groups:
        if part not in group or not isinstance(group[part], ConfigDict):
            raise UserError(f"{where} has no group '{part}'; {_nearest(part, group)}")
        group, where = group[part], f"{where}.{part}"
    if key not in group:
        # A key that the file leaves at its default: read_config knows the type and the name.
        group[key] = _guess(text)
    else:
        group.unlock()
        group[key] = _cast(name, text, group[key])


def _cast(name: str, text: str, old):
    kind = type(old)
    if isinstance(old, ConfigDict):
        raise UserError(f"{name} is a group; set one of its values, say {name}.{next(iter(old))}.")
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{name} must be True or False, not '{text}'.")
        return text.lower() == "true"
    if kind in (tuple, list):
        parts = [p.strip() for p in text.strip("()[]").split(",") if p.strip()]
        return tuple(_guess(p) for p in parts)
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{name} must be {kind.__name__}, not '{text}'.") from None


def _guess(text: str):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if text.startswith("(") or "," in text:
        return tuple(_guess(p.strip()) for p in text.strip("()").split(",") if p.strip())
    return {"true": True, "false": False}.get(text.lower(), text.strip("'\""))


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}."
