"""Estimates kept as JSON, one file each, and the page of all of them."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_folder, read_json, write_json, write_text
from sphere_jax.rehearsal.estimate import Estimate
from sphere_jax.rehearsal.scaling_page import page_of

UNSAID = ("mesh.data=", "mesh.fsdp=", "data.path=")


def label_of(config: str, argv: Sequence[str]) -> str:
    """A config's name with what was overridden, but for the mesh's axes, which have a column, and
    paths, which say nothing of the program: "imagenet_slerp model.size=XL"."""
    given = [text.removeprefix("--config.") for text in argv if text.startswith("--config.")]
    shown = [text for text in given if not text.startswith(UNSAID)]
    return " ".join([Path(config).stem, *shown])


def keep(folder: Path, config: str, found: Estimate) -> None:
    """Replaces an older estimate of the same program on the same mesh, under the same label."""
    make_folder(folder)
    mesh = "x".join(str(size) for size in found.mesh.values())
    name = re.sub(r"[^\w.-]+", "_", f"{config}-{found.program}-{found.topology}-{mesh}")
    write_json(folder / f"{name}.json", {"config": config} | dataclasses.asdict(found))


def write_page(file: Path, folder: Path) -> None:
    """Raises UserError for a folder without estimates, or with one of an older version."""
    results = []
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if content is None:
            continue
        try:
            results.append((content.pop("config"), Estimate(**content)))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is of an older version; delete it.") from error
    if not results:
        raise UserError(f"{folder} holds no rehearsals; give --results to the command.")
    write_text(file, page_of(results))
