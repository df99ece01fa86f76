"""The error that a user can fix."""

import re
from typing import Any

QUOTED = 200  # characters that a message quotes of what the user gave
SENTENCE = 1000  # of a whole message: names of what is known make the longest


def shortened(text: str, most: int = QUOTED) -> str:
    """`text` with its middle left out where it is longer than `most` characters."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def first_line(error: Exception, most: int = QUOTED) -> str:
    """Of an error of a library, whose texts may have many lines, or none: then its kind."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()[:most]


def quoted(value: Any) -> str:
    """A value as a message shows it: text in quotes, everything at most `QUOTED` characters."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python writes no integers of more than 4,300 digits
        return "a number of thousands of digits"


class UserError(Exception):
    """Something outside the code is wrong: a config value, a file, a folder, an image.

    The message is one sentence that names the thing, what is wrong and the fix. Commands print it
    without a traceback and exit with code 2. It is one printable line. Long words and long messages
    lose their middle; texts with spaces are cut where they are quoted (`quoted`, `shortened`).
    """

    exit_code = 2

    def __init__(self, message: object):
        line = " ".join(str(message).splitlines())
        line = re.sub(r"\S+", lambda word: shortened(word[0]), line)
        line = shortened(line, SENTENCE)
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class Unanswered(UserError):
    """Another process or host did not answer: the same command may work when it is started again,
    and the launchers do so."""

    exit_code = 75
