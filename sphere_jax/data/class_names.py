"""Names of the classes that labels stand for: read with the data, stored beside what is made of it.

`classes.json` holds them, in a folder of a data set, of a cache and of a run. Its entry k is the
name of label k, or a pair of the name and words for it: `["n01440764", "tench, Tinca tinca"]`.
A user may write it as a list; written here, it is an object with a checksum.
"""

import dataclasses
import difflib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError, shortened
from sphere_jax.common.files import SEAL, unsealed, write_json
from sphere_jax.common.progress import log
from sphere_jax.config.options import Config, DataOptions, source_of

FILE = "classes.json"
SYNSETS = ("LOC_synset_mapping.txt", "words.txt")  # "n01440764 tench, Tinca tinca", a line each
SHOWN = 5  # classes that are printed at the start


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a data set, labels 0..count-1.

    names: of every label; () where labels have numbers alone. titles: words for some names, as
    "tench, Tinca tinca" for "n01440764": synonyms behind commas.
    """

    count: int
    names: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether a name says more than the number."""
        return any(name != str(label) for label, name in enumerate(self.names))

    def shown(self, label: int) -> str:
        """ "n01440764 tench", or the number of a class without a name."""
        if label == self.count:
            return "no class"
        name = self.names[label] if label < len(self.names) else str(label)
        title = self.titles[label] if label < len(self.titles) else ""
        text = f"{name} {title.partition(',')[0]}".strip()
        return text.encode("utf-8", "replace").decode()  # a folder's name need not be text

    @property
    def all_shown(self) -> list[str]:
        """`shown` of every label."""
        return [self.shown(label) for label in range(self.count)]

    def lines(self) -> list[str]:
        """ "label 2 = n01440764 tench", for the first few classes, if they have names."""
        if not self.named:
            return []
        most = min(self.count, len(self.names))
        few = most if most <= SHOWN + 1 else SHOWN
        lines = [f"label {label} = {self.shown(label)}" for label in range(few)]
        return lines + ([f"... and {most - few:,} more classes"] if few < most else [])


def classes_of(data: DataOptions) -> Classes:
    """The classes of the data set that a config names; images are not read.

    Raises:
      UserError: there is no such data set, or it has other classes than `data.num_classes`.
    """
    found = Classes(1) if data.labels == "none" else source_of(data).classes(data)
    if not data.num_classes:
        return found
    if len(found.names) > data.num_classes:
        raise UserError(
            f"{data.path or data.source} has {len(found.names)} classes but "
            f"config.data.num_classes={data.num_classes}; give {len(found.names)}, or 0 for as "
            "many as there are."
        )
    return dataclasses.replace(found, count=data.num_classes)


def with_classes_counted(config: Config) -> Config:
    """A config whose `data.num_classes=0` is replaced by the number that its data have.

    Raises UserError if the data cannot be read for it.
    """
    if config.data.num_classes:
        return config
    count = classes_of(config.data).count
    return dataclasses.replace(config, data=dataclasses.replace(config.data, num_classes=count))


def write_classes(folder: str | os.PathLike, classes: Classes) -> None:
    """Writes `classes.json`, if the classes have names."""
    if classes.names:
        titles = classes.titles or [""] * len(classes.names)
        pairs = zip(classes.names, titles, strict=True)
        named = {str(i): [name, title] if title else name for i, (name, title) in enumerate(pairs)}
        write_json(Path(folder) / FILE, named, sealed=True)


def read_classes(folder: str | os.PathLike, count: int = 0) -> Classes | None:
    """The classes that `classes.json` of a folder names, `count` of them or as many as there are
    names; None where there is no such file. Raises UserError if it holds something else."""
    folder = Path(folder)
    found = _read(folder / FILE)
    if found is None:
        return None
    if isinstance(found, dict):  # {"0": "ape"}, or {"0": ["n01440764", "tench"]} as Keras has it
        try:
            found = [found[str(label)] for label in range(len(found))]
        except KeyError as error:
            raise _unusable(folder / FILE) from error
    pairs = [(entry, "") if isinstance(entry, str) else entry for entry in found]
    names, titles = (tuple(column) for column in zip(*pairs, strict=True))
    if count and len(names) > count:
        raise UserError(f"{folder / FILE} names {len(names)} classes, and there are {count}.")
    return Classes(count or len(names), names, titles if any(titles) else ())


def titles_beside(folders: Sequence[Path], names: Sequence[str]) -> tuple[str, ...]:
    """Words for the names of class folders, from the first mapping that is in one of `folders`:
    `classes.json` (also a dictionary of names and words), `LOC_synset_mapping.txt` or `words.txt`.
    () without one, or with one that cannot be read, which the log says."""
    try:
        known = next(_mappings(folders), {})
    except (UserError, OSError) as error:
        log(f"names of classes are those of their folders: {error}")
        known = {}
    titles = tuple(known.get(name, "") for name in names)
    return titles if any(titles) else ()


def _mappings(folders: Sequence[Path]) -> Iterator[dict[str, str]]:
    for folder in folders:
        found = _read(folder / FILE)
        if found is not None:
            numbered = found if isinstance(found, dict) else dict(enumerate(found))
            pairs = [entry for entry in numbered.values() if not isinstance(entry, str)]
            yield dict(pairs or [(str(name), title) for name, title in numbered.items()])
        for name in SYNSETS:
            if (folder / name).is_file():
                text = (folder / name).read_text(encoding="utf-8", errors="replace")
                words = (line.split(maxsplit=1) for line in text.splitlines())
                yield {pair[0]: pair[1].strip() for pair in words if len(pair) == 2}


def _read(file: Path) -> list | dict | None:
    """A list or dictionary of names, or of pairs of name and title. Raises UserError if it is no
    such thing, or not what `write_classes` wrote."""
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise _unusable(file) from error
    if isinstance(found, dict) and not unsealed(found):
        raise UserError(
            f"{file} is damaged (its content has changed); run the command that wrote it again, or "
            f"delete its entry '{SEAL}' if the change is yours."
        )
    entries = found.values() if isinstance(found, dict) else found
    if not isinstance(found, (list, dict)) or not found or not all(map(_is_entry, entries)):
        raise _unusable(file)
    return found


def _is_entry(entry: Any) -> bool:
    texts = [entry] if isinstance(entry, str) else entry
    whole = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    return whole and (isinstance(entry, str) or len(texts) == 2)


def _unusable(file: Path) -> UserError:
    return UserError(
        f'{file} does not name classes; it must be a list of names, ["ape", "bee"], or of pairs, '
        '[["n01440764", "tench"]].'
    )


def parse_labels(text: str, classes: Classes) -> list[int]:
    """The labels of "0,1,2" or "ape,bee", numbers and names mixed; the number of classes is the
    null label. Capital letters do not matter where one class fits, and a title's synonym counts.

    Raises:
      UserError: no class has that name (with the nearest one), or several have.
    """
    known, found, parts = _spoken(classes), [], text.split(",")
    text = shortened(text)  # as it is quoted below
    longest = 1 + max((name.count(",") for name in known), default=0)
    while parts:
        stops = range(min(len(parts), longest), 1, -1)  # a name may hold commas
        stop = next((s for s in stops if ",".join(parts[:s]).strip().casefold() in known), 1)
        word, parts = ",".join(parts[:stop]).strip(), parts[stop:]
        if word:
            found.append(_label(word, text, known, classes))
    return found


def _spoken(classes: Classes) -> dict[str, list[int]]:
    """Labels by what they may be called, without capitals: names, titles and their synonyms."""
    known: dict[str, list[int]] = {}
    for label, name in enumerate(classes.names):
        title = classes.titles[label] if label < len(classes.titles) else ""
        words = {name, title, classes.shown(label), *(word.strip() for word in title.split(","))}
        for word in {word.casefold() for word in words} - {""}:
            known.setdefault(word, []).append(label)
    return known


def _label(word: str, text: str, known: dict[str, list[int]], classes: Classes) -> int:
    kind, colon, rest = word.partition(":")
    if colon and kind in ("label", "name"):
        word = rest
    exact = [label for label, name in enumerate(classes.names) if name == word]
    fitting = exact or known.get(word.casefold(), [])
    by_name = fitting if kind != "label" else []
    by_number = []
    if word.removeprefix("-").isascii() and word.removeprefix("-").isdigit() and kind != "name":
        by_number = [int(word)]
    if len(by_number + by_name) == 0:
        if not classes.named:
            raise UserError(f"--labels={text} must be numbers, say 0,1,2.")
        near = difflib.get_close_matches(word.casefold(), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the first is '{classes.shown(0)}'."
        raise UserError(f"--labels={text}: no class is called '{word}'; {hint}")
    if not by_name and not 0 <= by_number[0] <= classes.count:
        count = classes.count
        raise UserError(f"--labels={text} must be 0..{count - 1}, or {count} for no class.")
    if len(by_name) > 1:
        several = " and ".join(f"{classes.shown(label)} (label {label})" for label in by_name)
        raise UserError(f"--labels={text}: '{word}' is {several}; give the label.")
    if by_name and by_number and by_name != by_number:
        raise UserError(
            f"--labels={text}: '{word}' is the name of label {by_name[0]}; write name:{word}, or "
            f"label:{word} for the label of that number."
        )
    return (by_name or by_number)[0]


def missing_classes(labels: np.ndarray, count: int) -> tuple[int, list[int]]:
    """How many of `count` classes have no example among labels (N,), and the first few."""
    present = Counter(np.unique(labels).tolist())
    few = []
    for label in range(count):
        if label not in present:
            few.append(label)
        if len(few) == SHOWN:
            break
    return count - len(present), few
