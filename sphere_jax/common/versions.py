"""Versions of the software that a run was made with."""

import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Package versions, and the git state of this source tree if it is a checkout."""
    found = {name: metadata.version(name) for name in PACKAGES}
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
        state = git.stdout.strip()
    except FileNotFoundError:
        state = ""
    return found | {"sphere_jax": state or "not a git checkout"}
