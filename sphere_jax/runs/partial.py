"""Samples drawn so far, in files: after a kill the same drawing goes on where it was.

W/partial/NAME-CRC/about.json     what is drawn; CRC is of it
W/partial/NAME-CRC/00000128.npz   rows of the results from row 128 on

Files are written once a minute, so short drawings write none, and deleted once the samples are
used. A folder that cannot be written, or a disk without room, only costs the resumption. Several
commands may draw the same at once: what a file holds depends on its first row and its length alone.
"""

import json
import shutil
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import free_bytes, read_json, write_json, write_npz
from sphere_jax.common.processes import gathered_texts, is_main_process
from sphere_jax.common.progress import log

EVERY = 60.0  # seconds between files
FOLDER = "partial"
Rows = dict[str, np.ndarray]  # by name, of as many samples each


class Partial:
    """The rows of one drawing that are in files, and new ones.

    about: what the rows are a function of, ready for JSON. size: bytes of all of them.
    """

    def __init__(self, workdir: Path, name: str, about: dict[str, Any], size: int):
        self._about = json.loads(json.dumps(about))
        crc = zlib.crc32(json.dumps(about, sort_keys=True).encode())
        self._folder, self._name = workdir / FOLDER / f"{name}-{crc:08x}", name
        self._new: list[Rows] = []
        self._count = 0  # rows in files
        self._written, self._usable = time.monotonic(), is_main_process()
        with suppress(OSError):
            self._usable &= free_bytes(workdir) > 2 * size

    def rows(self) -> list[Rows]:
        """Those in files, in order; every process must call it."""
        found: list[Rows] = []
        try:
            same = read_json(self._folder / "about.json") == self._about
            while same and (file := self._file()).is_file():
                with np.load(file, allow_pickle=False) as stored:
                    found.append(dict(stored))
                self._count += _length(found[-1])
        except Exception:  # damaged, for which zipfile raises its own kinds: drawn from there on
            pass
        if not _all_have(self._count):
            found, self._count = [], 0
        if found:
            log(f"{self._name}: {self._count:,} samples were drawn before an interruption")
        return found

    def add(self, rows: Rows) -> None:
        """The next rows; perhaps written, with those before."""
        if not self._usable:
            return
        self._new.append(rows)
        if time.monotonic() - self._written < EVERY:
            return
        whole = {name: np.concatenate([new[name] for new in self._new]) for name in rows}
        try:
            write_json(self._folder / "about.json", self._about)
            write_npz(self._file(), whole)
        except UserError as error:
            log(f"An interruption would lose the samples drawn so far: {error}")
            self._usable = False
        self._count += _length(whole)
        self._new, self._written = [], time.monotonic()

    def _file(self) -> Path:
        """Of the next rows."""
        return self._folder / f"{self._count:08d}.npz"

    def delete(self) -> None:
        """Once the samples are used."""
        if is_main_process():
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):  # others are drawn, or there are none
                self._folder.parent.rmdir()


def delete_partial(workdir: Path) -> None:
    """All of a run, when it has finished."""
    if is_main_process():
        shutil.rmtree(workdir / FOLDER, ignore_errors=True)


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))


def _all_have(count: int) -> bool:
    """Whether every process found as many rows as the others; all must call it."""
    return len(set(gathered_texts(str(count)))) == 1


@jax.jit
def checksum(tree: PyTree) -> jax.Array:
    """uint32 of the bits of arrays, wherever they are: equal weights have one, and other ones
    hardly ever the same."""
    total = jnp.uint32(0)
    for leaf in jax.tree.leaves(tree):
        total = total * jnp.uint32(31) + _of_array(leaf)
    return total


@jax.jit  # traced once for all arrays of a shape
def _of_array(array):
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):
        array = jax.random.key_data(array)
    bits = jax.lax.bitcast_convert_type(array.astype(jnp.float32), jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, side in enumerate(bits.shape):
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place = place * jnp.uint32(side) + along
    mixed = (bits ^ (place * jnp.uint32(2654435761))) * jnp.uint32(2246822519)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(3266489917)
    return jnp.sum(mixed, dtype=jnp.uint32)
