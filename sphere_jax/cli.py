"""What all commands share: flags, config files with overrides, and errors as one sentence."""

import argparse
import atexit
import dataclasses
import difflib
import errno
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sphere_jax.common import peers, plugins
from sphere_jax.common.allocator import restart_with_allocator
from sphere_jax.common.errors import UserError, quoted, shortened
from sphere_jax.common.files import expand_path
from sphere_jax.common.flags import (
    OneOf,
    number,
    sentence_of,
    sentence_of_rest,
    sentence_of_text,
    whole,
)
from sphere_jax.common.interruption import EXIT_CODE as INTERRUPTED
from sphere_jax.common.interruption import SENTENCE as STOPPED
from sphere_jax.common.interruption import (
    Interrupted,
    decided,
    end_at_once,
    ignore,
    listening,
    say,
)
from sphere_jax.common.temporary import remove_temporaries
from sphere_jax.config.config_files import load_config, parse_value
from sphere_jax.config.option_reference import sampler_help, sampler_names
from sphere_jax.config.options import SamplerOptions
from sphere_jax.config.reading import option_at, read_config
from sphere_jax.data import image_choices

EXIT_CODES = (
    "exit codes: 0 done, 2 user error (the message says how to fix it), 130 interrupted,\n"
    "75 another process of the run was lost or did not answer"
)
user_path = expand_path  # type of a flag that names a file or folder
USERS_TO_MEND = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EMFILE,
}  # fmt: skip


def joins_processes(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Marks the `main` of a command whose processes share the work (`common/processes.py`). Other
    commands are refused where several processes are set up: each would do and write everything."""
    main.joins_processes = True
    return main


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs `main(argv)`: exit code 2 and a sentence for a user error, 130 for an interruption, and
    that of `common/peers.py` where another process of the run has ended."""
    restart_with_allocator()
    atexit.register(ignore)  # before all others, so that it runs last
    with listening(_leave_interrupted) as reported:
        code, sentence, kind = 0, "", "done"
        try:
            _set_precision()
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
            if not hasattr(main, "joins_processes"):
                from sphere_jax.common.processes import refuse_several

                refuse_several(_program())
            main(sys.argv[1:])
            sys.stdout.flush()
        except UserError as error:
            code, sentence, kind = error.exit_code, f"error: {error}", "error"
        except BrokenPipeError:  # as in `| head`: the reader has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code, kind = 1, "error"
        except Interrupted as stop:
            sentence = f"Stopped. {stop}. The same command resumes from there."
            code, kind = INTERRUPTED, "done"  # all processes have agreed
        except KeyboardInterrupt:
            code, sentence, kind = INTERRUPTED, STOPPED, "stopped"
        except Exception as error:
            code, sentence, kind = 2, _to_mend(error), "error"
            if not sentence:
                try:
                    cause = peers.leave("error", wait=peers.UNEXPLAINED)
                except KeyboardInterrupt:
                    cause = ""
                if not cause:
                    peers.end_with_traceback()
                    raise
                code, sentence, kind = peers.code(), f"error: {cause}", ""
        decided(code)
        reported.set()
        if kind and (cause := peers.leave(kind)):
            code, sentence = peers.code(), f"error: {cause}"
            decided(code)
        if sentence:
            _silence_threads()
            say(sentence)
        peers.end(code)
    if code:  # nothing that runs at exit may change the code, take its time or add a traceback
        remove_temporaries()  # what a second signal has left
        end_at_once(code)


def _to_mend(error: Exception) -> str:
    """The sentence of an error of the system about a file, if users can mend it; else ""."""
    known = isinstance(error, OSError) and error.errno in USERS_TO_MEND and error.filename
    return f"error: {error.filename}: {error.strerror}." if known else ""


def _leave_interrupted() -> None:
    """Before an end that no `finally` sees."""
    peers.leave("stopped")
    remove_temporaries()


def _silence_threads() -> None:
    """A save that has failed leaves threads, whose event loops close now: their tracebacks must not
    follow the sentence that says why."""

    def nothing(*_) -> None:
        pass

    sys.excepthook = threading.excepthook = sys.unraisablehook = nothing


def _set_precision() -> None:
    """float32 products in what PyTorch calls "high" (three passes of bfloat16 on TPU, TensorFloat32
    on GPU, exact on CPU): TPU's default is one pass of bfloat16. bfloat16 arrays are not affected.
    JAX_DEFAULT_MATMUL_PRECISION, if set, has priority.
    """
    import jax  # slow: after signals are handled

    if jax.config.jax_default_matmul_precision is None:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")


class Parser(argparse.ArgumentParser):
    """Flags of a command, or of one of its actions.

    What is wrong with a flag is a UserError of one sentence. Help states defaults. `samples`: the
    command also takes the sampler options of methods for which this is true; `published(method)`
    are the command's own defaults of some.
    """

    def __init__(
        self,
        description: str,
        epilog: str = "",
        samples: Callable[[Any], bool] | None = None,
        action: str = "",
        published: Callable[[Any], Mapping[str, Any]] = lambda method: {},
    ):
        self._names: list[str] = []  # of all flags
        self._required: dict[str, str] = {}  # their names by the attributes of the arguments
        super().__init__(
            prog=f"{_program()} {action}".rstrip(),
            description=description,
            epilog=f"{epilog.rstrip()}\n{EXIT_CODES}".lstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self._samples, self._published = samples, published
        self._argv: list[str] = []
        if samples:
            for name, kind in (("steps", whole()), ("guidance", number()), ("batch", whole())):
                dest = "batch_size" if name == "batch" else name
                self.add_argument(f"--{name}", type=kind, dest=dest, help=argparse.SUPPRESS)

    def add_argument(self, *names: str, **settings):
        """As in argparse; the default, if there is one, ends the help."""
        default, about = settings.get("default"), settings.get("help", "")
        silent = default is False or default in (None, "", [], argparse.SUPPRESS)
        if not silent and "%(default)s" not in about:
            settings["help"] = f"{about} (default %(default)s)".lstrip()
        action = super().add_argument(*names, **settings)
        self._names += [name for name in names if name.startswith("--")]
        if action.required:
            self._required[action.dest] = names[0]
        return action

    def add_choice(self, name: str, names: Iterable[str], **settings):
        """A flag that takes one of some names."""
        names = tuple(names)
        self.add_argument(name, type=OneOf(names), metavar=f"{{{','.join(names)}}}", **settings)

    def parse_known_args(self, args=None, namespace=None):
        self._argv = list(args or ())
        for name, _, value in (text.partition("=") for text in self._argv):
            if name == "--" or value == "--":  # argparse would give the flag an empty list
                raise UserError(
                    f"{quoted(name + '=--' if value else name)} is no flag with a value."
                )
        try:
            found, rest = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            raise UserError(sentence_of(error)) from None
        for attribute, name in self._required.items():
            if getattr(found, attribute) == "":
                raise UserError(f"{name} is empty; give it a value.")
        return found, rest

    def parse_args(self, args=None, namespace=None):
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            raise UserError(sentence_of_rest(rest[0], self._names))
        return found

    def error(self, message: str):
        for name in (text.partition("=")[0] for text in self._argv):  # mistyped, so it is missing
            if name not in self._names and difflib.get_close_matches(name, self._names, 1, 0.8):
                raise UserError(sentence_of_rest(name, self._names))
        raise UserError(sentence_of_text(message))

    def format_help(self) -> str:
        """With the sampler options: of the run, if --workdir names one, else of all methods."""
        text = super().format_help()
        if not self._samples:
            return text
        return text.replace(self.epilog, f"{self._sampler_help()}\n\n{self.epilog}", 1)

    def _sampler_help(self) -> str:
        from sphere_jax.runs.loading import stored_config

        if workdir := _value_of("--workdir", self._argv):
            config = read_config(stored_config(Path(expand_path(workdir))), stored=True)
            if config.generator and self._samples(config.method(config.generator)):
                listed = sampler_help(self._samples, self._published, config)
                return f"options of the sampler of {workdir}:\n{listed}"
        listed = sampler_help(self._samples, self._published)
        return f"options of the run's sampler (--workdir=W --help shows its values):\n{listed}"

    def parse_sampler(self, argv: list[str]) -> argparse.Namespace:
        """The arguments; `sampler` among them holds the sampler options that were given: numbers,
        or the texts of `sampler_values`."""
        arguments, rest = self.parse_known_args(argv)
        shared = [field.name for field in dataclasses.fields(SamplerOptions)]
        given = {name: getattr(arguments, name, None) for name in shared}
        arguments.sampler = {name: value for name, value in given.items() if value is not None}
        known = [name.removeprefix("--") for name in self._names]
        while rest:
            name, equals, text = rest.pop(0).partition("=")
            if not name.startswith("--") or not self._samples:
                raise UserError(sentence_of_rest(name, self._names))
            if not (equals or rest):
                raise UserError(f"{name} needs a value: {name}=VALUE.")
            name = name.removeprefix("--")
            if name not in sampler_names() and difflib.get_close_matches(name, known, 1, 0.8):
                raise UserError(sentence_of_rest(f"--{name}", self._names))
            arguments.sampler[name] = text if equals else rest.pop(0)
        return arguments


def _program() -> str:
    given = sys.argv[0]
    return given if given.startswith("sphere_jax ") else f"python -m sphere_jax.{Path(given).stem}"


def _value_of(name: str, argv: list[str]) -> str:
    """The last value that a flag is given, or ""."""
    found = [text.partition("=")[2] for text in argv if text.startswith(f"{name}=")]
    found += [text for flag, text in itertools.pairwise(argv) if flag == name]
    return found[-1] if found else ""


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
    known = sampler_names()
    for name in names:
        if name not in known:
            raise UserError(f"There is no flag --{name}; {plugins.nearest(name, known)}")


def choose_action(argv: list[str], about: str, actions: Mapping[str, str]) -> str:
    """The action that the first argument names; "" where that asks for help, which is printed.

    Raises:
      UserError: another name, or a flag before the action.
    """
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(f"usage: {_program()} ACTION [flags]; ACTION --help lists the flags\n\n{about}\n")
        for action, does in actions.items():
            print(f"  {action:<14}{does}")
        return ""
    if name.startswith("-"):
        known = ", ".join(actions)
        raise UserError(f"The action comes before {shortened(name)}: one of {known}.")
    if name not in actions:
        raise UserError(f"There is no action {quoted(name)}; {plugins.nearest(name, actions)}")
    return name


def add_weights_flag(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--weights", type=user_path, default="", metavar="{ema,raw,best,FILE}",
        help="used instead of those that the stage names: averaged or raw ones, the best of "
        "config.evaluation.keep_best, or a file, say of sphere_jax.ema",
    )  # fmt: skip


def parse_with_config(parser: argparse.ArgumentParser, argv: list[str]):
    """`(arguments, Config)`; `--config.a.b=v` overrides a value of the file `--config=FILE`."""
    overrides = [a for a in argv if a.startswith("--config.")]
    arguments = parser.parse_args([a for a in argv if not a.startswith("--config.")])
    from sphere_jax.data.class_names import with_classes_counted  # slow: after signals are handled

    return arguments, with_classes_counted(load_config(arguments.config, overrides))


def add_side_flags(flags: Parser) -> None:
    """How the images of a side are read: arguments of `evaluation.api.evaluate`."""
    flags.add_argument("--size", type=whole(8), help="pixels that all images are brought to")
    flags.add_choice("--resize", image_choices.RESIZES, help="how (default bicubic)")
    flags.add_choice("--crop", image_choices.CROPS, help="or stretched (default center)")
    flags.add_choice("--rounding", image_choices.ROUNDINGS, help="of floats in [-1, 1] to uint8")
    flags.add_choice("--split", image_choices.SPLITS, help="of a run's data (default train)")
    flags.add_argument("--skip_bad", action="store_true", help="leave out images that are damaged")
    flags.add_argument("--fetch", action="store_true", help="download a named reference")
    flags.add_argument("--feature_batch", type=whole(1), help="images at once (default 64)")


def weights_files(text: str) -> list[str]:
    """The files of --pretrained, where several networks may have one each, by commas."""
    return [user_path(file) for file in text.split(",") if file]


def side_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of `add_side_flags` that were given, but for --split, by the names of `evaluate`."""
    names = {name: name for name in ("size", "resize", "crop", "rounding", "skip_bad", "fetch")}
    given = {
        to: getattr(arguments, name)
        for name, to in (names | {"feature_batch": "batch_size"}).items()
    }
    return {name: value for name, value in given.items() if value}
