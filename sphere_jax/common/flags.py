"""Types of command-line flags, and what is wrong with a flag in one sentence."""

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Iterable

from sphere_jax.common.errors import quoted, shortened
from sphere_jax.common.plugins import nearest

MISSING = re.compile(r"the following arguments are required: (.*)")  # argparse


def whole(low: int | None = None, high: int | None = None) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers in an inclusive range."""
    return _number(int, "a whole number", low, high)


def number(low: float | None = None, high: float | None = None) -> Callable[[str], float]:
    """The type of a flag that takes finite numbers in an inclusive range."""
    return _number(float, "a finite number", low, high)


def any_method(method: object) -> bool:
    """For `cli.Parser`: a command with the sampler options of every method."""
    return True


def _number(kind: type, what: str, low, high) -> Callable[[str], float]:
    wanted = what if low is None else f"{what} of at least {low}"
    wanted = wanted if high is None else f"{what}, {low} to {high}"

    def read(text: str):
        try:
            value = kind(text)
            fits = math.isfinite(value)
        except (ValueError, OverflowError):
            fits = False
        if not fits or (low is not None and value < low) or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {quoted(text)}")
        return value

    return read


seed = whole(0, 2**32 - 1)  # of random numbers


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The type of a flag that takes one of some names."""

    names: tuple[str, ...]

    def __call__(self, text: str) -> str:
        if text not in self.names:
            known = ", ".join(map(repr, self.names))
            raise argparse.ArgumentTypeError(f"must be one of {known}, not {quoted(text)}")
        return text


def sentence_of(error: argparse.ArgumentError) -> str:
    """What `parse_known_args` raises, as a sentence."""
    name, message = error.argument_name, error.message
    if message.startswith("expected"):
        return f"{name} needs a value: {name}=VALUE."
    if message.startswith("ignored explicit argument"):
        return f"{name} takes no value; write it alone."
    return f"{name} {shortened(message, 600)}."


def sentence_of_text(message: str) -> str:
    """What argparse gives to `ArgumentParser.error`, as a sentence."""
    if missing := MISSING.fullmatch(message):
        names = missing[1].split(", ")
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing; see --help."
    return f"{message[:1].upper()}{message[1:]}."


def sentence_of_rest(text: str, known: Iterable[str]) -> str:
    """About an argument that no flag takes."""
    name = text.partition("=")[0]
    if not name.startswith("-"):
        return f"{quoted(text)} belongs to no flag; a flag is written --NAME=VALUE."
    return f"There is no flag {shortened(name)}; {nearest(name, known)}"
