"""Versions of the software that a run was made with."""

import re
import subprocess
from importlib import metadata
from pathlib import Path

from sphere_jax.common.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Package versions, and the git state of this source tree if it is a checkout."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return found | {"sphere_jax": _git("describe", "--always", "--dirty") or "not a git checkout"}


def commit() -> str:
    """The short name of the commit of this source tree, with "-dirty" where package or configs
    differ from it; "" if it is no checkout."""
    name = _git("rev-parse", "--short=7", "HEAD")
    changed = name and _git("status", "--porcelain", "--", ":/sphere_jax", ":/configs")
    return f"{name}-dirty" if changed else name


def check_cuda_plugins() -> None:
    """Raises UserError if JAX's plugins for two versions of CUDA are installed: both register the
    same GPUs, and which of them JAX takes, if it starts, is chance."""
    names = {distribution.name.replace("_", "-") for distribution in metadata.distributions()}
    plugins = sorted(name for name in names if re.fullmatch(r"jax-cuda\d+-plugin", name))
    if len(plugins) > 1:
        kept, *others = (name.removesuffix("-plugin") for name in plugins)
        packages = " ".join(f"{name}-plugin {name}-pjrt" for name in others)
        raise UserError(
            f"{' and '.join(plugins)} are installed side by side, and JAX can use one of them: "
            f"pip uninstall {packages}, to keep {kept}."
        )


def _git(*arguments: str) -> str:
    """What git prints here; "" where it fails, or where there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
