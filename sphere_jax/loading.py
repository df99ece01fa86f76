"""Opening the folder of a finished run, for sampling and scoring."""

import json
from pathlib import Path
from typing import Any

from sphere_jax.config import read_config
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.errors import UserError
from sphere_jax.experiment import Run, open_run


def load_run(workdir: Path, sampler: dict[str, Any] | None = None, data: bool = False) -> Run:
    """The run of `workdir` with its trained artifacts on all devices of this machine.

    `sampler` replaces values of the config's sampler group. The mesh is made anew: a run trained
    on 16 devices is sampled on whatever is here. Its data set is read only if `data` is true.

    Raises:
      UserError: not a run folder, not finished, or damaged.
    """
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(
            f"{workdir} is not a run folder (no config.json); give the --workdir of a run."
        )
    try:
        raw = json.loads(file.read_text())["config"]
        raw |= {"sampler": raw["sampler"] | (sampler or {}), "mesh": {}}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); run sphere_jax.main again.") from error
    config = read_config(raw)
    mesh = make_mesh()
    run = open_run(config, workdir, mesh) if data else Run(config, workdir, mesh)
    run.load_stages()
    return run
