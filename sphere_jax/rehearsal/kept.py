"""Estimates kept as JSON, one file each, and the page of all of them."""

import dataclasses
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_folder, read_json, write_json, write_text
from sphere_jax.rehearsal.estimate import Estimate
from sphere_jax.rehearsal.scaling_page import page_of


def keep(folder: Path, config: str, found: Estimate) -> None:
    """Replaces an older estimate of the same program on the same mesh."""
    make_folder(folder)
    mesh = "x".join(str(size) for size in found.mesh.values())
    name = f"{config}-{found.program}-{found.topology}-{mesh}".replace(":", "_").replace(" ", "_")
    write_json(folder / f"{name}.json", {"config": config} | dataclasses.asdict(found))


def write_page(file: Path, folder: Path) -> None:
    """Raises UserError for a folder without estimates."""
    results = []
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if content is not None:
            results.append((content.pop("config"), Estimate(**content)))
    if not results:
        raise UserError(f"{folder} holds no rehearsals; give --results to the command.")
    write_text(file, page_of(results))
