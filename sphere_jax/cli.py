"""What all commands share: config files with overrides, and errors as one sentence."""

import argparse
import dataclasses
import importlib.util
import itertools
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from sphere_jax.config import Config, read_config, to_dict, type_of
from sphere_jax.errors import UserError
from sphere_jax.training.signals import Interrupted


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs `main(argv)`: exit code 2 and a sentence for what the user can mend, 130 for a stop."""
    _set_precision()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as in `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Interrupted as stop:
        print(f"Stopped. {stop}. The same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print(
            "Stopped. The same command begins again, or goes on from what it has kept.",
            file=sys.stderr,
        )
        sys.exit(130)


def _set_precision() -> None:
    """float32 products in what PyTorch calls "high" (three passes of bfloat16 on TPU, TensorFloat32
    on GPU, exact on CPU): TPU's default is one pass of bfloat16. What is bfloat16 stays so, and
    JAX_DEFAULT_MATMUL_PRECISION, if set, is obeyed.
    """
    if jax.config.jax_default_matmul_precision is None:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")


def parser(description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_sampler_flags(flags: argparse.ArgumentParser) -> None:
    """What `sample`, `evaluate` and `edit` let a user change about sampling."""
    flags.add_argument("--steps", type=int, help="from noise to data")
    flags.add_argument("--guidance", type=float, help="guidance scale; 1 is off")
    flags.add_argument("--batch", type=int, dest="batch_size", help="images at a time")
    flow = flags.add_argument_group("flow matching")
    flow.add_argument("--solver", choices=("euler", "heun", "midpoint", "multistep"))
    flow.add_argument("--t_end", type=float, help="where the last step ends; 0 is data")
    flow.add_argument("--guidance_low", type=float, help="guide from this time, 0 (data) to 1")
    flow.add_argument("--guidance_high", type=float, help="up to this one")
    flow.add_argument("--auto_guidance", metavar="RUN", help="folder of a weaker run to guide by")
    flow.add_argument("--decode_radius", type=float, help="of decoded tokens; 0: the space's own")
    few = flags.add_argument_group("few-step systems (Sphere Encoder, Sphere Latent Encoder)")
    few.add_argument("--strength", type=float, help="of the noise between steps, 0 to 1")
    few.add_argument("--schedule", choices=("fixed", "decreasing"), help="of the strength")
    few.add_argument(
        "--share_noise", type=_boolean, metavar="True|False", help="one noise for all steps"
    )
    few.add_argument(
        "--guidance_at", choices=("encoder", "decoder", "combo"), help="Sphere Encoder"
    )


SAMPLER_FLAGS = (
    "steps", "guidance", "batch_size", "solver", "t_end", "guidance_low", "guidance_high",
    "auto_guidance", "decode_radius", "strength", "schedule", "share_noise", "guidance_at",
)  # fmt: skip


SWEPT = (  # in one run by one set of weights; the first two compile nothing anew
    "guidance", "decode_radius", "guidance_low", "guidance_high", "solver", "steps", "t_end",
    "strength",
)  # fmt: skip


def add_weights_flag(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--weights", default="", metavar="F.safetensors",
        help="in the place of the network's own, say an average that sphere_jax.ema wrote",
    )  # fmt: skip


def sampler_options(arguments) -> dict:
    """The sampler values that were given, under their names in the config."""
    given = {name: getattr(arguments, name) for name in SAMPLER_FLAGS}
    return {name: value for name, value in given.items() if value is not None}


def sweep_configs(config: Config, sweeps: list[str]) -> list[tuple[dict[str, str], Config]]:
    """`(values, config)` for every combination of `KEY=VALUE,VALUE,...` of the sampler's options.
    Where the guidance scale is 1, which is off, no weaker run is guided by.

    Raises UserError for what cannot be swept and for values that the config refuses.
    """
    named, combinations = _swept(sweeps), []
    for values in itertools.product(*named.values()):
        raw = to_dict(config)
        for key, value in zip(named, values, strict=True):
            _override(raw, f"--config.sampler.{key}={value}")
        if raw["sampler"]["guidance"] == 1.0 and raw["sampler"].get("auto_guidance"):
            raw["sampler"]["auto_guidance"] = ""
        combinations.append((dict(zip(named, values, strict=True)), read_config(raw)))
    return combinations


def swept_guidance(sweeps: list[str]) -> float:
    """The first swept guidance scale that guides, or 1. Raises UserError as `sweep_configs`."""
    values = _swept(sweeps).get("guidance", ())
    return next((s for v in values if (s := _parse("--sweep=guidance", v, float)) != 1.0), 1.0)


def _swept(sweeps: list[str]) -> dict[str, list[str]]:
    """{KEY: [VALUE, ...]} of `KEY=VALUE,VALUE,...`. Raises UserError for what cannot be swept."""
    named = {}
    for text in sweeps:
        key, equals, values = text.partition("=")
        if not equals or not values or key not in SWEPT or key in named:
            raise UserError(
                f"--sweep={text} must be KEY=VALUE,VALUE,..., each KEY once, of {', '.join(SWEPT)}."
            )
        named[key] = [value.strip() for value in values.split(",")]
    return named


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False, not '{text}'")
    return text.lower() == "true"


def parse_labels(text: str, num_classes: int) -> list[int]:
    """The classes of "0,1,2"; `num_classes` is the null label. Raises UserError."""
    try:
        labels = [int(label) for label in text.split(",") if label.strip()]
    except ValueError:
        raise UserError(f"--labels={text} must be numbers, say 0,1,2.") from None
    if any(not 0 <= label <= num_classes for label in labels):
        raise UserError(
            f"--labels={text} must be 0..{num_classes - 1}, or {num_classes} for no class."
        )
    return labels


def parse_with_config(parser: argparse.ArgumentParser, argv: list[str]):
    """`(arguments, Config)`; `--config.a.b=v` overrides a value of the file `--config=FILE`."""
    overrides = [a for a in argv if a.startswith("--config.")]
    arguments = parser.parse_args([a for a in argv if not a.startswith("--config.")])
    return arguments, load_config(arguments.config, overrides)


def load_config(path: str, overrides: list[str] = ()) -> Config:
    """The checked config of a file with overrides `--config.a.b=v`. Raises UserError."""
    if not Path(path).is_file():
        known = ", ".join(sorted(map(str, Path("configs").glob("*.py")))) or "none here"
        raise UserError(f"There is no config file '{path}'; known: {known}.")
    try:
        raw = run_file(path, "get_config").to_dict()
    except AttributeError:
        raise UserError(f"get_config() of {path} must return a ConfigDict.") from None
    for override in overrides:
        _override(raw, override)
    return read_config(raw)


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
        raise UserError(f"{path} does not run ({kind}: {error}); mend the file.") from error


def _override(raw: dict[str, Any], argument: str) -> None:
    """Sets one value, or one that the file leaves at its default, with the type of the option."""
    name, equals, text = argument.removeprefix("--").partition("=")
    if not equals:
        raise UserError(f"--{name} needs a value: --{name}=VALUE.")
    *groups, key = path = name.split(".")[1:]
    value = _parse(name, text.strip(), type_of(raw, path))
    for part in groups:
        raw = raw.setdefault(part, {})
    raw[key] = value


def _parse(name: str, text: str, hint: Any) -> Any:
    """`text` as a value of type `hint`; whether it is in range is for `read_config` to say."""
    if dataclasses.is_dataclass(hint):
        example = next(field.name for field in dataclasses.fields(hint))
        raise UserError(f"{name} is a group; set one of its values, say {name}.{example}.")
    if typing.get_origin(hint) is tuple:
        (kind, _) = typing.get_args(hint)
        parts = [part.strip() for part in text.strip("()[]").split(",")]
        return tuple(_parse(name, part, kind) for part in parts if part)
    if typing.get_origin(hint) is typing.Literal:
        return next((c for c in typing.get_args(hint) if str(c) == _unquoted(text)), text)
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{name} must be True or False, not '{text}'.")
        return text.lower() == "true"
    try:
        return _unquoted(text) if hint is str else hint(text)
    except ValueError:
        raise UserError(f"{name} must be {hint.__name__}, not '{text}'.") from None


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
