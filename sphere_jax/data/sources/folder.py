"""A folder of class folders: listed once, decoded batch by batch."""

import os
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import log
from sphere_jax.config.options import DataOptions
from sphere_jax.data.lazy_pictures import Pictures
from sphere_jax.data.source import DataSource, Split
from sphere_jax.data.splitting import every_fifth_of_each_class, split_images

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif",
)  # fmt: skip
NOT_CLASSES = ("__MACOSX",)  # what archives of a Mac hold besides


class Folder(DataSource):
    """Either `train/CLASS/*` with `val/CLASS/*` (or, without `val`, `test/CLASS/*`) held out, or
    `CLASS/*` with every fifth of each class held out.

    Classes are numbered in the order of their sorted names, and in that of their values where all
    names are integers. Names that begin with a dot are ignored. Other files, and subfolders of a
    class, are left out, and the log says how many.
    """

    read_in_batches = True

    def load(self, data: DataOptions) -> Split:
        root = Path(data.path)
        if not data.path or not root.is_dir():
            raise UserError(f"There is no folder '{data.path}'; config.data.path must be one.")
        try:
            images, labels, held = _listed(root, data)
        except OSError as error:
            raise UserError(f"{root} cannot be listed ({error}).") from error
        return split_images(images, labels, held, data)


def _listed(root: Path, data: DataOptions) -> tuple[Pictures, np.ndarray, np.ndarray]:
    if not (root / "train").is_dir() or not _subfolders(root / "train"):  # or a class of trains
        numbers = _numbers(root, data.num_classes)
        names, sizes, labels = _part(root, "", numbers)
        return Pictures(root, names, sizes, data), labels, every_fifth_of_each_class(labels)

    numbers = _numbers(root / "train", data.num_classes)
    aside = next((part for part in ("val", "test") if (root / part).is_dir()), None)
    if aside is None:
        raise UserError(
            f"{root} has a folder train but neither val nor test; add one, or give "
            f"config.data.path='{root / 'train'}' to hold out every fifth image of each class."
        )
    held_classes = _subfolders(root / aside)  # a small held-out part may lack a class
    unknown = sorted(set(held_classes) - numbers.keys())
    if unknown:
        raise UserError(f"{root / aside} has the class '{unknown[0]}', which train lacks.")
    if not held_classes:
        raise UserError(f"{root / aside} has no class folders; sort its images into them.")
    parts = (
        _part(root, "train/", numbers),
        _part(root, f"{aside}/", {name: numbers[name] for name in held_classes}),
    )
    names, sizes, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    held = np.arange(len(labels)) >= len(parts[0][2])
    return Pictures(root, names, sizes, data), labels, held


def _numbers(folder: Path, num_classes: int) -> dict[str, int]:
    """The label of each class folder, in sorted order."""
    classes = _subfolders(folder)
    if len(classes) != num_classes:
        raise UserError(
            f"{folder} has {len(classes)} class folders but config.data.num_classes={num_classes}."
        )
    return {name: label for label, name in enumerate(classes)}


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir() and e.name[0] != "."]
    names = sorted(name for name in names if name not in NOT_CLASSES)
    if all(name.isascii() and name.isdigit() for name in names):  # "10" is not between "1" and "2"
        return sorted(names, key=int)
    return names


def _part(
    root: Path, prefix: str, numbers: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names, sizes and labels of the images in `root/prefix/CLASS`, class by class, sorted."""
    names, sizes, labels, left_out = [], [], [], []
    for folder, label in numbers.items():
        with os.scandir(root / prefix / folder) as scanned:
            entries = [e for e in scanned if e.name[0] != "."]
        images = [e for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file()]
        found = sorted((e.name, e.stat().st_size) for e in images)
        left_out += sorted(e.path for e in entries if e not in images)
        if not found and any(e.is_dir() for e in entries):
            raise UserError(
                f"{root / prefix / folder} holds subfolders and no images; move their images up."
            )
        if not found:
            raise UserError(f"{root / prefix / folder} holds no images ({', '.join(SUFFIXES)}).")
        names += [f"{prefix}{folder}/{name}" for name, _ in found]
        sizes += [size for _, size in found]
        labels += [label] * len(found)
    if left_out:
        what = "subfolders or files that are no images"
        log(f"{root / prefix}: {len(left_out):,} {what} were left out, for example {left_out[0]}")
    return np.array(names, object), np.array(sizes, np.int64), np.array(labels, np.int32)


SOURCE = Folder()
