"""For commands that must end in time and keep what they have found."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from sphere_jax.common.files import write_json


def reason(error: Exception) -> str:
    """Kind and first line."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def stop_at(when: float, found: dict[str, Any], path: Path) -> threading.Timer:
    """Ends the process at `when`, by `time.monotonic`, with exit code 1, unless it is cancelled: no
    compiler can be interrupted otherwise. `found["running"]` is what it was at."""

    def stop() -> None:
        found.setdefault("not_run", {})[found.get("running", "the rest")] = "the time was over"
        print(f"\nThe time was over during {found.get('running', 'the rest')}.", flush=True)
        write_json(path, found)
        os._exit(1)

    guard = threading.Timer(when - time.monotonic(), stop)
    guard.daemon = True
    guard.start()
    return guard
