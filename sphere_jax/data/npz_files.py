"""Arrays of `.npz` files: headers are read before memory is taken, and nothing is unpickled."""

import contextlib
import math
import os
import struct
import zipfile
from collections.abc import Collection, Iterator
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import in_bytes
from sphere_jax.data.memory import check_fits

READ_IN_BATCHES = (
    "put images in files that are read batch by batch, config.data.source='folder' or "
    "'array_record'"
)
AGAIN = "write the file again by numpy.savez"
NAMED = 8  # arrays that a message lists
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(
    path: str | os.PathLike, needed: tuple[str, ...] = (), wanted: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`, or those of them that `wanted` names; the others are not touched.

    Raises:
      UserError: no such file, not an npz, an array that is empty, damaged or of Python objects,
        more than there is memory for, or an array of `needed` is missing.
    """
    with _open_archive(path) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
        check_has(members, needed, path)
        if wanted is not None:
            members = {name: m for name, m in members.items() if name in wanted}
        size = 0
        for name, member in members.items():
            with archive.open(member) as stream:
                size += _checked_size(stream, member.file_size, f"'{name}' of {path}")
        check_fits(f"The arrays of {path}", size, READ_IN_BATCHES)
        arrays = {}
        for name, member in members.items():
            with archive.open(member) as stream:
                arrays[name] = npy.read_array(stream, allow_pickle=False)
        return arrays


def sizes_in(path: str | os.PathLike) -> dict[str, int]:
    """Bytes of the arrays of an `.npz` by their names. Raises UserError where it is none."""
    with _open_archive(path) as archive:
        return {m.filename.removesuffix(".npy"): m.file_size for m in archive.infolist()}


@contextlib.contextmanager
def _open_archive(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Raises UserError for no such file, one that is no npz, and whatever reading it raises."""
    if not os.path.isfile(path):
        raise UserError(f"There is no file '{path}'; give the path of an .npz.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is not a readable .npz of plain arrays ({error}); {AGAIN}."
        ) from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit in memory; {READ_IN_BATCHES}.") from error
    except Exception as error:  # zlib and zipfile raise their own kinds for damaged content
        raise UserError(f"{path} is damaged ({error}); {AGAIN}.") from error


def check_has(arrays: Collection[str], needed: tuple[str, ...], where: str) -> None:
    """Raises UserError with the first name of `needed` that `arrays` lacks."""
    missing = [name for name in needed if name not in arrays]
    if not missing:
        return
    held, name = sorted(arrays), missing[0]
    shown = f"{held[:NAMED]}" + (" and more" if len(held) > NAMED else "")
    fix = ""
    if "arr_0" in arrays:  # numpy.savez(F, x, y), as ADM writes samples
        fix = f"; give arrays their names, numpy.savez(F, {name}=...)"
    raise UserError(f"{where} lacks the array '{name}'; it holds {shown}{fix}.")


def _checked_size(stream: BinaryIO, size: int, what: str) -> int:
    """Bytes that the array of a member of `size` bytes takes, by its header. Raises UserError."""
    if size == 0:
        raise UserError(f"{what} is empty; {AGAIN}.")
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = HEADERS[version](stream)
    except (ValueError, KeyError) as error:
        raise UserError(f"{what} is not an array; {AGAIN}.") from error
    if dtype.hasobject:
        raise UserError(
            f"{what} holds Python objects, which are never unpickled; save a plain array of "
            "numbers, with rows of one length and dtype."
        )
    taken = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or stream.tell() + taken != size:
        raise UserError(
            f"{what} is damaged: its header says {in_bytes(taken)}, and it holds "
            f"{in_bytes(size - stream.tell())}; {AGAIN}."
        )
    return taken


def open_npy(path: str | os.PathLike, in_memory: bool = False) -> np.ndarray:
    """The array of a `.npy`, which stays on disk unless it is wanted `in_memory`.

    Raises:
      UserError: the file is damaged, of another kind, or holds Python objects.
    """
    try:
        found = np.load(path, mmap_mode=None if in_memory else "r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python text, which fails in many ways
        raise UserError(f"{path} is no readable .npy array ({error}); write it again.") from error
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path} is an .npz and no .npy; write it by numpy.save.")
    return found


def mapped(path: str | os.PathLike, name: str) -> np.ndarray | None:
    """An array of an `.npz` that stays on disk and is read where it is indexed; None where it is
    compressed. Raises what `read_npz` raises."""
    with _open_archive(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as stream:
            _checked_size(stream, member.file_size, f"'{name}' of {path}")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        with open(path, "rb") as file:
            file.seek(member.header_offset + 26)  # lengths of what comes before the content
            file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
            version = npy.read_magic(file)
            shape, fortran, dtype = HEADERS[version](file)
            order = "F" if fortran else "C"
            return np.memmap(path, dtype, "r", file.tell(), shape, order)


def streamed(path: str | os.PathLike, name: str) -> Iterator[np.ndarray]:
    """The rows of an array of an `.npz`, read and inflated one after the other. Raises what
    `read_npz` raises."""
    with _open_archive(path) as archive, archive.open(f"{name}.npy") as stream:
        version = npy.read_magic(stream)
        (count, *shape), fortran, dtype = HEADERS[version](stream)
        if fortran:
            raise UserError(
                f"'{name}' of {path} is stored column by column; save "
                "numpy.ascontiguousarray of it."
            )
        size = math.prod(shape) * dtype.itemsize
        for _ in range(count):
            yield np.frombuffer(stream.read(size), dtype).reshape(shape)
