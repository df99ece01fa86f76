"""What all commands share: flags, config files with overrides, and errors as one sentence."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import expand_path
from sphere_jax.config.config_files import load_config, parse_value
from sphere_jax.config.reading import option_at
from sphere_jax.data.class_names import with_classes_counted
from sphere_jax.training.signals import Interrupted

EXIT_CODES = "exit codes: 0 done, 2 user error (the message says how to fix it), 130 interrupted"
user_path = expand_path  # type of a flag that names a file or folder
SHARED = {"steps": int, "guidance": float, "batch_size": int}  # sampler options of every method


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs `main(argv)`: exit code 2 and a sentence for a user error, 130 for an interruption."""
    _set_precision()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as in `| head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Interrupted as stop:
        print(f"Stopped. {stop}. The same command resumes from there.", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print(
            "Stopped. The same command starts again, or resumes from what is saved.",
            file=sys.stderr,
        )
        sys.exit(130)


def _set_precision() -> None:
    """float32 products in what PyTorch calls "high" (three passes of bfloat16 on TPU, TensorFloat32
    on GPU, exact on CPU): TPU's default is one pass of bfloat16. bfloat16 arrays are not affected.
    JAX_DEFAULT_MATMUL_PRECISION, if set, has priority.
    """
    if jax.config.jax_default_matmul_precision is None:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")


class Parser(argparse.ArgumentParser):
    """epilog: the end of --help, before the exit codes. samples: the command also takes the sampler
    options of a run's method."""

    def __init__(self, description: str, epilog: str = "", samples: bool = False):
        super().__init__(
            description=description,
            epilog=f"{epilog.rstrip()}\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._samples = samples
        if samples:
            self.add_argument("--steps", type=int, help="sampling steps")
            self.add_argument("--guidance", type=float, help="guidance scale; 1 is off")
            self.add_argument("--batch", type=int, dest="batch_size", help="images at a time")

    def format_help(self) -> str:
        """With the sampler options of all methods."""
        text = super().format_help()
        if not self._samples:
            return text
        lines = [
            f"  --{name:<20}{about} ({', '.join(methods)})"
            for name, (about, methods) in sampler_options().items()
            if name not in SHARED
        ]
        listed = "sampler options of the run's method:\n" + "\n".join(lines)
        return text.replace(self.epilog, f"{listed}\n\n{self.epilog}", 1)

    def parse_sampler(self, argv: list[str]) -> argparse.Namespace:
        """The arguments; `sampler` among them holds the sampler options that were given: numbers,
        or the texts of `sampler_values`."""
        arguments, rest = self.parse_known_args(argv)
        given = {name: getattr(arguments, name) for name in SHARED}
        arguments.sampler = {name: value for name, value in given.items() if value is not None}
        while rest:
            name, equals, text = rest.pop(0).partition("=")
            if not name.startswith("--") or not (equals or rest):
                self.error(f"unrecognized arguments: {name}")
            arguments.sampler[name.removeprefix("--")] = text if equals else rest.pop(0)
        return arguments


def sampler_options() -> dict[str, tuple[str, list[str]]]:
    """Sampler options of all methods of this package: meaning, and methods that have them."""
    found: dict[str, tuple[str, list[str]]] = {}
    for method in plugins.known("methods", "METHOD"):
        options = plugins.find("methods", "METHOD", method, "method").SamplerOptions
        for field in dataclasses.fields(options) if options else ():
            about, methods = found.setdefault(field.name, (field.metadata.get("help", ""), []))
            methods.append(method)
    return found


def sampler_values(workdir: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Sampler options that were given, with the types of those of the run in `workdir`.

    Raises:
      UserError: not a run folder, or its sampler has no such option.
    """
    from sphere_jax.runs.loading import stored_config

    raw, found = stored_config(workdir), {}
    for name, value in given.items():
        try:
            hint, about = option_at(raw, ["sampler", name])
        except UserError as error:
            raise UserError(
                f"--{name} is no flag here, and no option of {workdir}: {error}"
            ) from None
        value = parse_value(f"--{name}", value, hint) if isinstance(value, str) else value
        found[name] = expand_path(value) if about.get("path") else value
    return found


def check_sampler_names(names: Iterable[str]) -> None:
    """Raises UserError for a flag that is no sampler option of any method."""
    known = sampler_options()
    for name in names:
        if name not in known:
            raise UserError(f"There is no flag --{name}; {plugins.nearest(name, known)}")


def add_weights_flag(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--weights", type=user_path, default="", metavar="F.safetensors",
        help="used instead of the run's own, for example an average written by sphere_jax.ema",
    )  # fmt: skip


def parse_with_config(parser: argparse.ArgumentParser, argv: list[str]):
    """`(arguments, Config)`; `--config.a.b=v` overrides a value of the file `--config=FILE`."""
    overrides = [a for a in argv if a.startswith("--config.")]
    arguments = parser.parse_args([a for a in argv if not a.startswith("--config.")])
    return arguments, with_classes_counted(load_config(arguments.config, overrides))
