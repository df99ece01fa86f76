"""Where checkpoints are: a folder, or one in a bucket of Google Cloud Storage (gs://BUCKET/PATH).

Orbax writes arrays to both by itself. A bucket has no renames, so that a step there is complete
once it holds a file that says so, and its folders are what the names of objects begin with.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import free_bytes, in_bytes

COMPLETE = "commit_success.txt"  # of orbax, in a bucket
UNFINISHED = "*.orbax-checkpoint-tmp*"  # of orbax, in a folder


def is_bucket(folder: Any) -> bool:
    return str(folder).startswith("gs://")


def open_folder(folder: Path, store: str) -> Any:
    """The folder of a stage's checkpoints: `folder`, or one of its name in the bucket folder
    `store`, as an object like a `Path`.

    Raises UserError if nothing can be written there.
    """
    if not store:
        folder = Path(folder).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write checkpoints to {folder} ({error.strerror}).") from error
        return folder
    from etils import epath

    place = epath.Path(store) / folder.name
    try:
        import fsspec

        # Tensorstore writes there too, and other hosts do: remembered listings would be wrong.
        fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False
        probe = place / f".written-{socket.gethostname()}-{os.getpid()}"
        probe.write_text("")  # mkdir would create a mistyped bucket
        delete_file(probe)
    except ImportError as error:
        raise UserError(
            f"{store} needs a package that is not installed ({error}): pip install gcsfs."
        ) from error
    except Exception as error:  # of HTTP, of the credentials, of gcsfs
        raise UserError(
            f"Cannot write checkpoints to {place} ({type(error).__name__}: {error}); check the "
            "bucket's name and this machine's credentials."
        ) from error
    return place


def files_below(folder: Any) -> Iterator[Any]:
    """All files in a folder and its folders."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def size_of(file: Any) -> int:
    status = file.stat()
    return status.length if is_bucket(file) else status.st_size


def delete(folder: Any) -> None:
    """A folder, if it is there."""
    if not is_bucket(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(FileNotFoundError):
        folder.rmtree()


def delete_file(file: Any) -> None:
    with suppress(FileNotFoundError):
        file.unlink()


def move(folder: Any, target: Any) -> None:
    """`folder` to `target`, whose parent is made."""
    target.parent.mkdir(exist_ok=True)
    if not is_bucket(folder):
        folder.rename(target)
        return
    for file in files_below(folder):
        copy = target / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as source, copy.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 24)
    delete(folder)


def delete_unfinished(folder: Any) -> None:
    """Deletes what orbax has not completed."""
    left = list(folder.glob(UNFINISHED))
    if is_bucket(folder):
        steps = [path for path in folder.iterdir() if path.name.isdigit()]
        left += [step for step in steps if not (step / COMPLETE).exists()]
    for path in left:
        delete(path)


def room_in(folder: Any) -> str:
    """What is free there, in words; "" for a bucket."""
    return "" if is_bucket(folder) else in_bytes(free_bytes(folder))
