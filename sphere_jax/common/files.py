"""Files are replaced whole: a reader sees the old one or the new one, never a part of one.

Paths that a user gives: `~` and environment variables are expanded (`expand_path`), and what looks
mistyped makes no folders (`check_parents`).
"""

import errno
import json
import math
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sphere_jax.common.errors import UserError, shortened
from sphere_jax.common.forms import Form, misfit
from sphere_jax.common.temporary import removed_at_end, temporary_beside

OBJECT_STORE = re.compile(r"(gs|s3|az|abfs|hf|hdfs|https?):/")  # as a Path has it, too
SEAL = "crc32 of the rest"  # key of a JSON object: of all else in it
PATH_LENGTH, NAME_LENGTH = 4096, 255  # bytes, on all common file systems


def expand_path(text: str | os.PathLike) -> str:
    """A path as a shell reads it: `~`, `~user`, `$NAME` and `${NAME}` replaced.

    Raises:
      UserError: a variable that is not set, a user that does not exist, a null character, or more
        characters than a file system takes.
    """
    path = os.path.expanduser(os.fspath(text))
    given = shortened(os.fspath(text))
    if path.startswith("~"):
        user = path.split("/")[0]
        raise UserError(f"'{given}' starts with {user}, which is no user here; write ./{user}.")
    for name in re.findall(r"\$(?:(\w+)|\{(\w+)\})", path, re.ASCII):
        if max(name) not in os.environ:
            missing = shortened(max(name), 50)
            raise UserError(f"'{given}' needs ${missing}, which is not set: export it first.")
    path = os.path.expandvars(path)
    encoded = path.encode(errors="replace")
    longest = max(map(len, encoded.split(b"/")))
    if b"\0" in encoded or len(encoded) >= PATH_LENGTH or longest > NAME_LENGTH:
        raise UserError(f"'{given}' is no path: it is too long, or has a null character.")
    return path


def check_parents(path: str | os.PathLike) -> None:
    """Raises UserError if `path` has missing parents that look mistyped, or is no path of a file
    system.

    Inside the working directory any number of parents may be missing. Elsewhere the folder that
    holds `path` may be, if its own parent exists and is not `/`.
    """
    if OBJECT_STORE.match(os.fspath(path)):
        raise UserError(
            f"{path} is in an object store, which has no locks, renames and appends; name a folder "
            "of this machine. config.checkpoints.store=gs://BUCKET/FOLDER keeps checkpoints there."
        )
    path, here = Path(path), Path.cwd()
    absolute = Path(os.path.abspath(path))
    if absolute.is_relative_to(here) and (here != Path(here.anchor) or not path.is_absolute()):
        return
    parent = absolute.parent
    if os.path.exists(parent):
        return
    if not os.path.exists(parent.parent) or parent.parent == Path(parent.anchor):
        raise UserError(f"There is no folder {parent} for {path}; correct the path or make it.")


def make_parent(file: str | os.PathLike) -> None:
    """Makes the folder that `file` will be written to.

    Raises UserError if its path looks mistyped, if it is a folder, or if nothing can be written
    there.
    """
    check_parents(file)
    if os.path.isdir(file):
        raise UserError(f"{file} is a folder; name a file.")
    _make_writable(Path(file).parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: str | os.PathLike, content: Any, sealed: bool = False) -> None:
    """Standard JSON; NaN and infinity, which it lacks, become null. An object that no user edits is
    `sealed`: with a checksum, by which `read_json` notices what has changed in it."""
    content = _finite(content)
    if sealed:
        content = sealed_object(content)
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(file: Path, fix: str = "delete it", form: Form | None = None) -> dict | None:
    """The object in a JSON file, of this form; None where there is no such file.

    Raises UserError, which ends with `fix`, if it is damaged, no object or of another form. Older
    files have no seal, and are taken as they are.
    """
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({shortened(str(error))}); {fix}.") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged (it holds no object); {fix}.")
    if not unsealed(found):
        raise UserError(f"{file} is damaged (its content has changed); {fix}.")
    if form and (wrong := misfit(found, form)):
        raise UserError(f"{file} is damaged ({shortened(wrong)}); {fix}.")
    return found


def sealed_object(content: Mapping[str, Any]) -> dict[str, Any]:
    """With its checksum; `content` must be ready for JSON."""
    return {**content, SEAL: _checksum(content)}


def unsealed(found: dict[str, Any]) -> bool:
    """Takes the checksum out of an object that JSON gave; whether the rest is as it was written.
    One without a checksum is of an older version, or of a user, and is taken as it is."""
    seal = found.pop(SEAL, None)
    return seal is None or seal == _checksum(found)


def _checksum(content: Mapping[str, Any]) -> str:
    """Of an object as JSON gives it back, whatever the order of its keys."""
    plain = json.loads(json.dumps(content))
    return f"{zlib.crc32(json.dumps(plain, sort_keys=True).encode()):08x}"


def write_npz(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    import numpy as np  # slow, and commands handle signals only after their first imports

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:  # of a path, numpy would change the name
            np.savez(file, **arrays)

    write_whole(path, fill)


def make_folder(folder: str | os.PathLike) -> None:
    """Makes `folder`. Raises UserError if its path looks mistyped, if it is `/`, or if nothing can
    be written there."""
    check_parents(folder)
    if os.path.abspath(folder) == os.path.abspath(os.sep):
        raise UserError(f"{folder} is the root of the file system; name a folder in it.")
    _make_writable(folder)


def _make_writable(folder: str | os.PathLike) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"Cannot write to {folder} ({error.strerror}).") from error


def cache_folder(kind: str) -> Path:
    """Where files that can be made again are cached: $SPHERE_JAX_KIND, else sphere_jax/kind in the
    user's cache folder.

    Kinds: "weights" (downloads), "listings" (labels and fingerprints of data sets).
    """
    if named := os.environ.get(f"SPHERE_JAX_{kind.upper()}"):
        return Path(expand_path(named))
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sphere_jax" / kind


def make_cache_folder(kind: str) -> Path:
    """`cache_folder`, made. Raises UserError if it cannot be."""
    folder = cache_folder(kind)
    if os.environ.get(f"SPHERE_JAX_{kind.upper()}"):
        check_parents(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the cache folder {folder} ({error.strerror}).") from error
    return folder


def in_bytes(count: float) -> str:
    """1500 -> "1.5 kB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count:,.0f} GB"


def free_bytes(folder: Path) -> int:
    """What may still be written to a folder's disk."""
    return shutil.disk_usage(folder).free


def write_whole(path: str | os.PathLike, fill: Callable[[Path], Any], alone: bool = False) -> None:
    """Puts what `fill` writes to a temporary path at `path`, and its folders around it. `alone`:
    that path is in a folder of its own, for a `fill` that makes more files beside it.

    Raises UserError if that cannot be written. A path that a user names is checked before, by
    `make_parent` or `make_folder`.
    """
    path = Path(path)
    with removed_at_end(temporary_beside(path)) as temporary:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if alone:
                temporary.mkdir(exist_ok=True)
            written = temporary / path.name if alone else temporary
            fill(written)
            os.replace(written, path)
        except OSError as error:
            raise UserError(f"Cannot write {path} ({reason(error, path.parent)}).") from error


def reason(error: OSError, folder: Path) -> str:
    """Why nothing was written to `folder`, with the room there if that was too little."""
    text = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return text
    return f"{text}: {in_bytes(free_bytes(folder))} are free on its disk; make room"


def _finite(content: Any) -> Any:
    if hasattr(content, "tolist"):  # of NumPy
        content = content.tolist()
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content


def crc32(path: Path) -> int:
    """Of a file's content: fast, and any burst of flipped bits changes it."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total
