"""A folder of class folders, or of pictures alone: listed once, decoded batch by batch."""

import dataclasses
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import log
from sphere_jax.config.options import DataOptions
from sphere_jax.data.class_names import Classes, titles_beside
from sphere_jax.data.folder_walk import (
    SUFFIXES,
    Found,
    LeftOut,
    all_integers,
    has_pictures,
    named,
    pictures_in,
    subfolders,
)
from sphere_jax.data.lazy_pictures import Pictures
from sphere_jax.data.source import DataSource, Split
from sphere_jax.data.splitting import every_fifth_of_each_class, split_images

TRAIN = ("train", "training")
HELD_OUT = ("val", "validation", "valid", "test", "testing")  # the first that a folder has
ANNOTATIONS = "val_annotations.txt"  # "FILE CLASS ..." a line, as tiny-imagenet has it


class Folder(DataSource):
    """`CLASS/*`, or pictures alone, which are one class; every fifth of each class is held out.
    Below `train/` (or `training/`) in this way if there is such a folder, and held out is then what
    `val/`, `validation/`, `test/` or `testing/` holds, in any capitals.

    Classes are numbered in the order of their sorted names, and in that of their values where all
    names are integers. Folders in a class folder belong to the class. Names that begin with a dot
    are ignored; the log says how many other files are left out.
    """

    read_in_batches = True

    def load(self, data: DataOptions) -> Split:
        root = _root(data)
        try:
            images, labels, held = _listed(root, data)
        except OSError as error:
            raise UserError(f"{root} cannot be listed ({error}).") from error
        return split_images(images, labels, held, data)

    def classes(self, data: DataOptions) -> Classes:
        root = _root(data)
        try:
            layout = _layout(root, data)
            folder = root / layout.train
            if not layout.classes:
                return Classes(1)
            titles = titles_beside((folder, folder.parent), layout.classes)
        except OSError as error:
            raise UserError(f"{root} cannot be listed ({error}).") from error
        return Classes(len(layout.classes), tuple(layout.classes), titles)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """train, heldout: folders in the root, "" for the root itself. classes: names of the class
    folders in order, () of pictures without classes."""

    train: str
    heldout: str
    classes: tuple[str, ...]

    def say(self, root: Path) -> None:
        """A line about what is not plain `CLASS/*`."""
        if self.heldout:
            aside = [n for n in _parts(root, HELD_OUT) if n != self.heldout]
            unread = f"; {named(aside)} is not read" if aside else ""
            log(f"{root}: trained on {self.train}/, held out {self.heldout}/{unread}")
        numbers = self.classes and all_integers(self.classes)
        if numbers and int(self.classes[-1]) > len(self.classes):
            log(
                f"{root / self.train}: class folders are numbers with gaps; if they are no "
                "classes, give config.data.labels='none'"
            )
        if not self.classes:
            log(f"{root / self.train}: pictures without class folders are one class")


def _root(data: DataOptions) -> Path:
    root = Path(data.path)
    if not data.path or not root.is_dir():
        raise UserError(f"There is no folder '{data.path}'; config.data.path must be one.")
    return root


def _layout(root: Path, data: DataOptions) -> _Layout:
    """Raises UserError for class folders that are not as many as `data` says."""
    train, heldout = _split(root, data)
    folder = root / train
    classes = () if data.labels == "none" else tuple(subfolders(folder))
    count = data.num_classes
    if not classes and not has_pictures(folder) and not subfolders(folder):
        raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES)}) and no class folders.")
    if not classes and count > 1:
        raise UserError(
            f"{folder} has 0 class folders but config.data.num_classes={count}; its pictures "
            "without classes are one class, config.data.num_classes=1."
        )
    if classes and count and len(classes) != count:
        hint = "num_classes=0 takes as many as there are"
        if count == 1:
            hint = "config.data.labels='none' takes all pictures as one class"
        raise UserError(
            f"{folder} has {len(classes)} class folders but config.data.num_classes={count}: "
            f"{named(classes)}; {hint}."
        )
    return _Layout(train, heldout, classes)


def _split(root: Path, data: DataOptions) -> tuple[str, str]:
    """Names of the folders to train on and to hold out; "" and "" where there is no such split.

    A class may be called train: a split's train/ holds class folders, or has only the folders of
    other parts beside it.
    """
    trains = _parts(root, TRAIN)
    if not trains:
        return "", ""
    aside = _parts(root, HELD_OUT)
    only_parts = len(aside) > 0 and set(subfolders(root)) == {*trains, *aside}
    classed = any(subfolders(root / name) for name in trains)
    if not only_parts and not classed:
        return "", ""
    if len(trains) > 1:
        raise UserError(f"{root} has the folders {named(trains)}; keep one of them.")
    (train,) = trains
    if not aside:
        raise UserError(
            f"{root} has a folder {train} but neither val nor test; add one, or give "
            f"config.data.path='{root / train}' to hold out every fifth image of each class."
        )
    return train, aside[0]


def _parts(root: Path, names: tuple[str, ...]) -> list[str]:
    """Folders in `root` that are called so, in any capitals, in the order of `names`."""
    found = [folder for folder in subfolders(root) if folder.lower() in names]
    return sorted(found, key=lambda folder: names.index(folder.lower()))


def _listed(root: Path, data: DataOptions) -> tuple[Pictures, np.ndarray, np.ndarray]:
    """Pictures, labels int32 (N,) and held out, boolean (N,). Raises UserError, OSError."""
    layout, left_out = _layout(root, data), LeftOut()
    layout.say(root)
    prefix = f"{layout.train}/" if layout.train else ""
    trained = _part(root, prefix, layout.classes, left_out)
    for name, found in zip(layout.classes, trained, strict=False):
        if not found:
            raise UserError(
                f"{root / layout.train / name} holds no images ({', '.join(SUFFIXES)}); put some "
                "there or delete it."
            )
    if not any(trained):
        raise UserError(f"{root / layout.train} holds no images ({', '.join(SUFFIXES)}).")
    parts, held = [trained], []
    if layout.heldout:
        held = _held_out(root, layout, left_out)
        parts.append(held)
    left_out.say(root)
    names, sizes = zip(*(row for part in parts for found in part for row in found), strict=True)
    counts = [[len(found) for found in part] for part in parts]
    labels = np.concatenate([np.repeat(np.arange(len(c), dtype=np.int32), c) for c in counts])
    pictures = Pictures(root, np.array(names, object), np.array(sizes, np.int64), data)
    if not layout.heldout:
        return pictures, labels, every_fifth_of_each_class(labels)
    return pictures, labels, np.arange(len(labels)) >= sum(counts[0])


def _part(root: Path, prefix: str, classes: tuple[str, ...], left_out: LeftOut) -> list[Found]:
    """The pictures of each class in `root/prefix`, with paths relative to `root`."""
    if not classes:
        return [[(f"{prefix}{name}", size) for name, size in pictures_in(root / prefix, left_out)]]
    beside = pictures_in(root / prefix, LeftOut(), deep=False)
    for name, _ in beside:
        left_out.add("pictures beside the class folders", str(root / prefix / name))
    found = []
    for folder in classes:
        inside = f"{prefix}{folder}"
        pictures = pictures_in(root / inside, left_out)
        found.append([(f"{inside}/{name}", size) for name, size in pictures])
    return found


def _held_out(root: Path, layout: _Layout, left_out: LeftOut) -> list[Found]:
    """As `_part`. A small held-out part may lack classes. Raises UserError for others."""
    prefix, folder = f"{layout.heldout}/", root / layout.heldout
    if not layout.classes:
        found = _part(root, prefix, (), left_out)
        if not any(found):
            raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES)}).")
        return found
    annotations = folder / ANNOTATIONS
    if annotations.is_file():
        return _annotated(annotations, prefix, layout.classes, left_out)
    classes, train = subfolders(folder), root / layout.train
    fix = f"sort its images into them, or hold out every fifth: config.data.path='{train}'"
    if not classes:
        raise UserError(f"{folder} has no class folders; {fix}.")
    unknown = [name for name in classes if name not in layout.classes]
    if unknown:
        lacks = f"has the class '{unknown[0]}', which {layout.train} lacks"
        raise UserError(f"{folder} {lacks}; {fix}.")
    found = dict(zip(classes, _part(root, prefix, tuple(classes), left_out), strict=True))
    empty = [name for name in classes if not found[name]]
    if empty:
        log(f"{folder}: no images in {named(empty)}")
    return [found.get(name, []) for name in layout.classes]


def _annotated(file: Path, prefix: str, classes: tuple[str, ...], left_out: LeftOut) -> list[Found]:
    """Pictures below the folder of `file`, whose lines say the class of each. Raises UserError."""
    lines = (
        line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
    )
    class_of = {words[0]: words[1] for words in lines if len(words) > 1}
    found: dict[str, Found] = {name: [] for name in classes}
    for name, size in pictures_in(file.parent, left_out):
        label = class_of.get(name.rpartition("/")[2])
        if label not in found:
            raise UserError(f"{file} gives {name} no class that is in train; correct or delete it.")
        found[label].append((f"{prefix}{name}", size))
    log(f"{file.parent}: classes read from {file.name}")
    return list(found.values())


SOURCE = Folder()
