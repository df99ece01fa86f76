"""Auto-guidance: the run whose network guidance moves away from, and its checks."""

from pathlib import Path

import jax
import jax.numpy as jnp

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Config
from sphere_jax.config.reading import read_config
from sphere_jax.methods.base import Generator
from sphere_jax.runs.loading import load_run, stored_config
from sphere_jax.runs.records import DATA, FINGERPRINT, completed, options_of, read_record, renamed
from sphere_jax.runs.run import Run


def with_weaker(run: Run) -> tuple[Generator, dict]:
    """The generator of a run, with the network that auto-guidance moves away from, if the config
    names its run; and the parameters of that network, {"weaker": ...} or none.

    Raises UserError if that run generates from other latents, or is not finished.
    """
    folder = run.config.sampler.weaker_run
    if not folder:
        return run.generator, {}
    other = load_run(Path(folder), mesh=run.mesh)
    try:
        method = run.generator.guided_by(other.generator)
        _check_latents(run, other)
    except ValueError as error:
        raise UserError(f"config.sampler.auto_guidance={folder} {error}.") from error
    return method, {"weaker": other.artifacts[other.generator.network_parameters]}


def check_weaker(config: Config) -> None:
    """Raises UserError, before anything trains, unless the run that auto-guidance guides by is
    finished; whether it fits is for `with_weaker`."""
    folder = config.sampler.weaker_run
    if not folder:
        return
    exists = (Path(folder) / "config.json").is_file()
    stages = read_config(stored_config(Path(folder)), stored=True).stages if exists else ("",)
    for name in stages:
        record = read_record(Path(folder) / "stages" / f"{name}.json")
        if not record or not record["finished"]:
            raise UserError(
                f"config.sampler.auto_guidance={folder} is not the folder of a finished run."
            )


def _check_latents(run: Run, other: Run) -> None:
    """Raises ValueError if their latents, which may have one shape, mean other images."""
    a, b = _latents_of(run), _latents_of(other)
    if a.get(DATA) and b.get(DATA) and not fingerprints.same_kind(a[DATA], b[DATA]):
        a[DATA] = run.data_fingerprint_like(b[DATA])
    for key in sorted(a.keys() & b.keys()) + sorted(a.keys() ^ b.keys()):
        if a.get(key) != b.get(key):
            raise ValueError(
                f"was trained on other latents: {key}={b.get(key)!r}, not {a.get(key)!r}"
            )
    for part in run.tokenizer.parts:
        both = part in other.artifacts and part in run.artifacts
        if part != "decoder" and both and not _equal(other.artifacts[part], run.artifacts[part]):
            raise ValueError(
                f"was trained on other latents: its tokenizer's {part} has other weights"
            )


def _latents_of(run: Run) -> dict:
    """The recorded values that determine which latents a finished run generates: the tokenizer
    without its decoder, or the data if they are latents."""
    record = run.records.read(run.config.generator)
    if record is None:  # not from a folder
        return {}
    depends = renamed(record["depends"], run.config)
    found = completed(depends, run.config)
    if not run.tokenizer.decodes:
        return {key: found.get(key) for key in ("config.tokenizer.name", DATA)}
    files = [key for key, leaf in options_of(run.config, ("tokenizer",)).items() if leaf.file]
    return {
        key: value
        for key, value in found.items()
        if key.startswith("config.tokenizer.") and "decoder" not in key
        if key not in files  # paths; fingerprints identify the files
        # Weights that a run trained are compared themselves, wherever this run has them from.
        if not (run.config.tokenizer_class.trained_here and key.endswith(FINGERPRINT))
    }


def _equal(a, b) -> bool:
    """Whether two trees of arrays are the same."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(
        x.shape == y.shape and bool(jnp.array_equal(x, y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
