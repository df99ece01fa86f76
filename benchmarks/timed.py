"""For commands that must end in time and keep what they have found."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphere_jax.common.files import write_json


def reason(error: Exception) -> str:
    """Kind and first line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


@contextlib.contextmanager
def noted(failed: dict[str, str], name: str) -> Iterator[None]:
    """An error inside is one line and `failed[name]`, because what comes after is worth having."""
    try:
        yield
    except Exception as error:  # out of memory, say, or no compiler for torch.compile
        failed[name] = reason(error)
        print(f"  {name} failed: {failed[name]}", flush=True)


@contextlib.contextmanager
def stop_at(when: float, found: dict[str, Any], path: Path) -> Iterator[None]:
    """Ends the process, with exit code 1, if it is inside at `when`, by `time.monotonic`: no
    compiler can be interrupted otherwise. `found` is written then; its "running" is what it was at.
    """

    def stop() -> None:
        try:
            found.setdefault("unfinished", {})[found.get("running", "the rest")] = (
                "the time was over"
            )
            print(f"\nThe time was over during {found.get('running', 'the rest')}.", flush=True)
            write_json(path, found)
        finally:  # the work goes on meanwhile, and may change what is written
            os._exit(1)

    guard = threading.Timer(when - time.monotonic(), stop)
    guard.daemon = True
    guard.start()
    try:
        yield
    finally:
        guard.cancel()
