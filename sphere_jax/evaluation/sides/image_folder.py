"""A folder of pictures as a side: flat, of class folders, or nested in any way."""

import dataclasses
import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import StubImageFile

from sphere_jax.common.errors import UserError
from sphere_jax.data.folder_walk import LeftOut, pictures_in
from sphere_jax.data.pictures import decoded
from sphere_jax.evaluation.sides.base import Pictures, Pixels, Side


@cache
def suffixes() -> tuple[str, ...]:
    """Of all formats that Pillow decodes."""
    Image.init()
    openers = {name: opener for name, (opener, _) in Image.OPEN.items()}
    known = Image.registered_extensions().items()
    return tuple(
        suffix
        for suffix, name in known
        if name in openers and name != "MPEG" and not _is_stub(openers[name])
    )


def _is_stub(opener) -> bool:
    """Whether Pillow knows the format by its header alone."""
    return isinstance(opener, type) and issubclass(opener, StubImageFile)


@dataclasses.dataclass(frozen=True, eq=False)
class PictureFiles(Pictures):
    """Files below `root`, decoded one at a time."""

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> Pixels:
        file = self.root / self.names[row]
        return decoded(file, str(file), 3, np.asarray)


def folder_side(path: str | os.PathLike) -> Side:
    """The pictures in a folder and in all folders below it, sorted by path.

    Where every picture is in a subfolder, the first level with several subfolders has the classes.

    Raises:
      UserError: there are no pictures, or the folder cannot be listed.
    """
    root, left_out = Path(path), LeftOut()
    try:
        found = pictures_in(root, left_out, suffixes=suffixes())
    except OSError as error:
        raise UserError(f"{root} cannot be listed ({error}).") from error
    left_out.say(root)
    if not found:
        raise UserError(
            f"{root} holds no images; give a folder of pictures, an .npz or statistics."
        )
    names = tuple(name for name, _ in found)
    return Side(os.fspath(path), "folder of pictures", PictureFiles(root, names), _labels(names))


def _labels(names: tuple[str, ...]) -> np.ndarray | None:
    """int32 (N,), the classes of pictures by their paths; None where folders tell no classes."""
    parts = [name.split("/") for name in names]
    for level in range(min(map(len, parts)) - 1):
        folders, labels = np.unique([part[level] for part in parts], return_inverse=True)
        if len(folders) > 1:
            return labels.astype(np.int32)
    return None
