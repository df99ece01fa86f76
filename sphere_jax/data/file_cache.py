"""Results of reading files through, cached on disk until the files change."""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import cache_folder, make_cache_folder, write_npz
from sphere_jax.data.npz_files import read_npz


def cached(
    name: str, files: Sequence[Path], find: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `find()` returns, or what it returned before for the same files.

    Files are the same if their paths, sizes and times of change (nanoseconds) are: content that
    changes while all three stay goes unnoticed. Where the cache folder cannot be written, nothing
    is cached.

    Raises:
      UserError: a file is not there.
    """
    try:
        stats = [(str(file.resolve()), file.stat()) for file in map(Path, files)]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}).") from error
    key = json.dumps([name, [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]])
    path = cache_folder("listings") / f"{name}-{fingerprints.of_text(key, digits=32)}.npz"
    with contextlib.suppress(UserError):  # not there yet, or damaged
        return read_npz(str(path))
    found = find()
    with contextlib.suppress(UserError):
        make_cache_folder("listings")
        write_npz(path, found)
    return found
