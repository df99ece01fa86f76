"""Estimates kept as JSON, one file each in the folder "rehearsals" beside the page of them all."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_folder, read_json, write_json, write_text
from sphere_jax.common.versions import commit
from sphere_jax.rehearsal.estimate import Estimate
from sphere_jax.rehearsal.scaling_page import MADE_WITH, Record, page_of

UNSAID = ("mesh.data=", "mesh.fsdp=", "mesh.tensor=", "data.path=")


def label_of(config: str, argv: Sequence[str]) -> str:
    """A config's name with what was overridden, but for the mesh's axes, which have a column, and
    paths, which say nothing of the program: "imagenet_slerp model.size=XL"."""
    given = [text.removeprefix("--config.") for text in argv if text.startswith("--config.")]
    shown = [text for text in given if not text.startswith(UNSAID)]
    return " ".join([Path(config).stem, *shown])


def made_with() -> dict[str, str]:
    """Commit, day and compilers of an estimate made now: the keys MADE_WITH."""
    try:
        libtpu = metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        libtpu = ""
    values = (commit(), date.today().isoformat(), metadata.version("jax"), libtpu)
    return dict(zip(MADE_WITH, values, strict=True))


def folder_of(page: Path) -> Path:
    return page.parent / "rehearsals"


def keep(page: Path, config: str, made: Mapping[str, str], found: Estimate) -> None:
    """Replaces an older estimate of the same program on the same mesh, under the same label."""
    make_folder(folder := folder_of(page))
    mesh = "x".join(str(size) for size in found.mesh.values())
    name = re.sub(r"[^\w.-]+", "_", f"{config}-{found.program}-{found.topology}-{mesh}")
    content = {"config": config, **made, **dataclasses.asdict(found)}
    write_json(folder / f"{name}.json", content, sealed=True)


def read_records(page: Path) -> list[Record]:
    """Raises UserError for a folder without estimates, or with one of an older version."""
    records = []
    for path in sorted(folder_of(page).glob("*.json")):
        content = read_json(path)
        try:
            config, made = content.pop("config"), {key: content.pop(key) for key in MADE_WITH}
            records.append(Record(config, made, Estimate(**content)))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is of an older version; delete it.") from error
    if not records:
        raise UserError(f"{folder_of(page)} holds no rehearsals; give --config and --topology.")
    return records


def write_page(page: Path) -> None:
    """Raises UserError as `read_records` does."""
    write_text(page, page_of(read_records(page)))
