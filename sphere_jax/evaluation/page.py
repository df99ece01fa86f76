"""A page of sections: `report.html`, one file that needs no other, readable on a light page and a
dark one; or Markdown, with its pictures beside it.
"""

import base64
import dataclasses
import html
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.files import write_bytes, write_text
from sphere_jax.evaluation.page_style import STYLE


@dataclasses.dataclass(frozen=True)
class Headline:
    """A number for the top of the page: its name, its value in words, what to hold it against."""

    name: str
    value: str
    note: str = ""

    def html(self) -> str:
        note = f"<small>{_text(self.note)}</small>" if self.note else ""
        return f"<div><span>{_text(self.name)}</span><b>{_text(self.value)}</b>{note}</div>"


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    def html(self) -> str:
        return f"<p>{_text(self.text)}</p>"

    def markdown(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Code:
    """A command or other text in type of equal width."""

    text: str

    def html(self) -> str:
        return f"<pre><code>{_text(self.text)}</code></pre>"

    def markdown(self) -> str:
        return f"```\n{self.text}\n```"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: bytes of a PNG file at twice the screen's resolution, and its caption."""

    png: bytes
    caption: str

    def html(self) -> str:
        width, height = struct.unpack(">II", self.png[16:24])  # of the PNG header
        source = base64.b64encode(self.png).decode()
        return (
            f'<figure><img width="{width // 2}" height="{height // 2}" alt="{_text(self.caption)}" '
            f'src="data:image/png;base64,{source}">'
            f"<figcaption>{_text(self.caption)}</figcaption></figure>"
        )


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells below a header; numbers get four digits, None a dash."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def html(self) -> str:
        head = "".join(f"<th>{_text(name)}</th>" for name in self.header)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div class="wide">{table}</div>'

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        cells = ([_plain(cell).replace("|", "\\|") for cell in line] for line in lines)
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)


Block = Text | Code | Picture | Table


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

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
    links = "".join(
        f'<a href="#section{i}">{_text(section.title)}</a>' for i, section in enumerate(sections)
    )
    body = "".join(
        f'<section id="section{i}"><h2>{_text(section.title)}</h2>'
        + "".join(block.html() for block in section.blocks)
        + "</section>"
        for i, section in enumerate(sections)
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{_text(title)}</h1><p>{_text(summary)}</p></header>"
        f'<div class="headlines">{"".join(h.html() for h in headlines)}</div>'
        f"<nav>{links}</nav>{body}</main></body></html>\n"
    )
    write_text(path, page)


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


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _cell(value: Any) -> str:
    kind = ' class="number"' if isinstance(value, (int, float, np.number)) else ""
    return f"<td{kind}>{_text(_plain(value))}</td>"


def _plain(value: Any) -> str:
    """A value in words: 0.12345 -> 0.1235, None -> a dash, {"a": 1} -> a: 1."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{k.replace('_', ' ')}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)
