"""One run at a time writes to a folder.

The lock is the operating system's (`flock` of W/.lock): it ends with the process that holds it,
however that process ends, and NFS passes it on to other hosts. Where a file system has no locks, or
keeps them on this host, a line says so. Reading a folder needs no lock.
"""

import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process, told_by_main_process
from sphere_jax.common.progress import log

NAME = ".lock"
MOUNTS = Path("/proc/self/mountinfo")
# Options of NFS, Lustre and CIFS that keep locks on one host.
LOCAL = re.compile(r"local_lock=(all|flock)|\bnolock\b|\blocalflock\b|\bnobrl\b")


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """While active, no other run can enter this for `folder`, which exists.

    The first process of a run holds the lock for all of them; each must call this.

    Raises:
      UserError: another run holds it; the message has its host and process id.
    """
    file = folder / NAME
    descriptor = _take(file) if is_main_process() else None
    taken = told_by_main_process(descriptor is not None)
    if not taken:
        raise UserError(
            f"{folder} is in use by another run, {_owner(file)}; wait until it ends or stop it, or "
            "give another folder."
        )
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # the file stays: deleting it could let two runs in


def _take(file: Path) -> int | None:
    """The descriptor that holds the lock; None if another process holds it."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"Cannot write to {file.parent} ({error.strerror}).") from error
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        log(f"{file.parent}: no lock on this system; a second run in it would not be refused")
        return descriptor
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            return None
        log(
            f"{file.parent}: its file system has no locks ({error.strerror}); a second run in it "
            "would not be refused"
        )
        return descriptor
    if _on_this_host_only(file.parent):
        log(f"{file.parent}: its file system keeps locks on this host; a second run in it would "
            "be refused here, but not on other hosts")  # fmt: skip
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": time.ctime()}
    with suppress(OSError):  # the disk is full: the lock is held all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
    return descriptor


def _owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['process']} on host {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        return "which has just started"


def _on_this_host_only(folder: Path) -> bool:
    """Whether the file system is shared between hosts and its locks are not."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return False
    mounts = [line.split() for line in lines]
    folder = folder.resolve()
    above = [mount for mount in mounts if folder.is_relative_to(mount[4])]
    nearest = max(above, key=lambda mount: len(mount[4]), default=())
    return LOCAL.search(",".join(nearest)) is not None
