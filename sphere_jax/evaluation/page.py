"""A page of sections: HTML in one file that needs no other, readable on a light page and on a dark
one (`templates/page.html`); or Markdown, with its pictures beside it.
"""

import base64
import dataclasses
import functools
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.files import write_bytes, write_text


@dataclasses.dataclass(frozen=True)
class Headline:
    """A number for the top of the page: its name, its value in words, what to compare it with."""

    name: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    def markdown(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Code:
    """A command or other text in type of equal width."""

    text: str

    def markdown(self) -> str:
        return f"```\n{self.text}\n```"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: bytes of a PNG file at twice the screen's resolution, and its caption."""

    png: bytes
    caption: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the screen, in pixels."""
        width, height = struct.unpack(">II", self.png[16:24])  # of the PNG header
        return width // 2, height // 2

    @property
    def data_uri(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells below a header; numbers get four digits, None a dash."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        cells = ([in_words(cell).replace("|", "\\|") for cell in line] for line in lines)
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)


Block = Text | Code | Picture | Table  # each has a macro in the template


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    title: str
    blocks: Sequence[Block]


def write_report(
    path: str | os.PathLike,
    title: str,
    summary: str,
    headlines: Sequence[Headline],
    sections: Sequence[Section],
) -> None:
    """Writes a self-contained page, atomically. All text is escaped.

    Args:
      summary: one paragraph: what was run, on what, for how long.
      headlines: the few numbers a reader came for.
    """
    page = _template().render(title=title, summary=summary, headlines=headlines, sections=sections)
    write_text(path, page)


@functools.cache
def _template():
    import jinja2  # not to read a config

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sphere_jax.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"words": in_words, "kind": lambda block: type(block).__name__}
    environment.tests["number"] = lambda value: isinstance(value, (int, float, np.number))
    return environment.get_template("page.html")


def write_markdown(path: Path, title: str, summary: str, sections: Sequence[Section]) -> None:
    """The same page as Markdown, every picture in a file of its own beside it: `STEM-1.png` ...

    Pictures of an earlier page that had more of them are removed.
    """
    parts, pictures = [f"# {title}", summary], 0
    for section in sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            if isinstance(block, Picture):
                pictures += 1
                name = f"{path.stem}-{pictures}.png"
                write_bytes(path.with_name(name), block.png)
                parts.append(f"![{block.caption}]({name})\n\n*{block.caption}*")
            else:
                parts.append(block.markdown())
    write_text(path, "\n\n".join(parts) + "\n")
    while (old := path.with_name(f"{path.stem}-{pictures + 1}.png")).exists():
        old.unlink()
        pictures += 1


def measured_table(metrics: Mapping[str, float]) -> Table:
    """A row for each number."""
    rows = [[key.replace("_", " "), value] for key, value in metrics.items()]
    return Table(["measured", ""], rows)


def in_words(value: Any) -> str:
    """0.12345 -> 0.1235, None -> a dash, {"a": 1} -> a: 1."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{k.replace('_', ' ')}: {in_words(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return str(value)
