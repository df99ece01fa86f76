"""The record of a stage, W/stages/NAME.json: what its weights depend on, held against a config.

It keeps a folder from being mixed. A record is older than the options that came after it: one that
it lacks counts as its default.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import write_json
from sphere_jax.common.processes import is_main_process
from sphere_jax.config.options import RAW_PATHS, Config
from sphere_jax.config.reading import to_dict
from sphere_jax.weights.stored import fingerprint_of

WEIGHTS_FILES = (  # options that name one: what counts is what it holds
    ".lpips",
    ".convnext",
    ".dino",
    ".pretrained",
    ".pretrained_encoder",
    ".pretrained_decoder",
    ".pretrained_statistics",
)
# What may change between two starts of one run: it moves no weight.
FREE_KEYS = (
    ".log_every",
    ".checkpoint_every",
    ".preview_every",
    ".ema_snapshot_every",
    ".skip_nonfinite",
    ".measured",  # held-out images, once the stage is trained
    ".data.path",
    ".data.threads",
    ".space.retraction",  # of a sampler's steps; training takes none
    *WEIGHTS_FILES,
)
FINGERPRINT = " fingerprint"  # of the file that an option names


def check_weights_exist(config: Config) -> None:
    """Raises UserError for an option that names weights which are not there, or not whole."""
    plain = to_dict(config)
    used = {name: plain[name] for name in (*config.stages, "tokenizer", "evaluation")}
    for key, path in flatten("config", used).items():
        if key.endswith(WEIGHTS_FILES) and path:
            fingerprint_of(path)


@dataclasses.dataclass(frozen=True)
class Records:
    """Those of one run: {"depends": {...}, "finished": bool, "metrics": {...}} a stage."""

    config: Config
    workdir: Path
    data_fingerprint: str

    def file(self, name: str) -> Path:
        return self.workdir / "stages" / f"{name}.json"

    def read(self, name: str, check: bool = False) -> dict | None:
        """That of stage `name`, None if it has not begun.

        Raises UserError if it is damaged or, with `check`, of another config.
        """
        file = self.file(name)
        if not file.exists():
            return None
        try:
            record = json.loads(file.read_text())
            record = record if {"depends", "finished"} <= record.keys() else None
        except (ValueError, AttributeError) as error:
            raise UserError(f"{file} is damaged ({error}); delete it to train again.") from error
        differs = (
            check and record and difference(record["depends"], self.depends(name), self.config)
        )
        if differs:
            raise UserError(
                f"{self.workdir} holds stage '{name}' with {differs}; give another --workdir, or "
                "the config and the version that began this one."
            )
        return record

    def claim(self, name: str) -> dict:
        """That of stage `name`, begun if new. Raises UserError as `read` does with `check`."""
        record = self.read(name, check=True)
        if record is None:
            record = {"depends": self.depends(name), "finished": False}
            if is_main_process():
                write_json(self.file(name), record)
        return record

    def check_stages(self) -> None:
        """Raises UserError if the folder holds a stage that the config does not have."""
        found = sorted(file.stem for file in (self.workdir / "stages").glob("*.json"))
        for name in (name for name in found if name not in self.config.stages):
            raise UserError(
                f"{self.workdir} holds stage '{name}', which this config does not have; give "
                "another --workdir, or the config that began this one."
            )

    def check_weights_files(self, name: str, record: dict) -> None:
        """Raises UserError if a frozen network's file is not the one that the stage saw."""
        flat = flatten("config", {"tokenizer": to_dict(self.config)["tokenizer"]})
        for key, path in flat.items():
            trained_on = record["depends"].get(f"{key}{FINGERPRINT}")
            if trained_on and trained_on != fingerprint_of(path):
                raise UserError(
                    f"{path} ({key}) has other weights than those that stage '{name}' of "
                    f"{self.workdir} was trained on; put the old file back."
                )

    def depends(self, name: str) -> dict[str, Any]:
        """Every value that the weights of stage `name` are a function of."""
        plain, stages = to_dict(self.config), self.config.stages
        # A decoder sees what is projected and how, not the path: arms may share it.
        groups = {"flow": ("space", "model"), "sphere_latent": ("space", "model")}
        earlier = stages[: stages.index(name)]
        kept = {"seed", "data", "tokenizer"}
        for stage in (*earlier, name):  # what the weights of earlier stages depend on counts too
            kept |= {stage, *groups.get(self.config.stage(stage).method, ())}
        flat = flatten("config", {group: plain[group] for group in sorted(kept)})
        files = {key: path for key, path in flat.items() if key.endswith(WEIGHTS_FILES)}
        flat = {key: value for key, value in flat.items() if not key.endswith(FREE_KEYS)}
        flat |= {f"{key}{FINGERPRINT}": fingerprint_of(path) for key, path in files.items() if path}
        methods = {self.config.stage(stage).method for stage in (*earlier, name)}
        if methods & {"decoder", "flow", "sphere_latent"}:
            flat["projection"] = _projection(self.config.space)
        flat["data fingerprint"] = self.data_fingerprint
        flat["earlier stages"] = earlier
        return json.loads(json.dumps(flat))


def _projection(space) -> str:
    """What becomes of latents before they are decoded, in words."""
    if space.path in RAW_PATHS:
        return "none"
    return f"{space.sphere} sphere of radius {space.radius or 'sqrt(d)'}"


def difference(before: dict[str, Any], now: dict[str, Any], config: Config) -> str | None:
    """The first value in which a record differs from what `config` asks for `now`, or None.

    Both are flat, "config.flow.steps" and so on, as `Records.depends` gives them.
    """
    known = completed(before, config)
    for key in sorted(now, key=lambda key: (key not in before, key)):  # of both first: a kind's
        if known.get(key) != now[key]:  # name says more than the options that come with it
            return f"{key}={known.get(key)!r}, not {now[key]!r}"
    for key in sorted(before.keys() - now.keys()):
        if key.endswith(FINGERPRINT) or not key.startswith("config."):
            return f"{key}={before[key]!r}, not None"
        if not key.endswith(FREE_KEYS):
            return f"{key}={before[key]!r}, which this version does not know"
    return None


def completed(depends: dict[str, Any], config: Config) -> dict[str, Any]:
    """A record's values, with the defaults of the options that it lacks; kinds are `config`'s."""
    groups = vars(config) | dict(config.groups)
    fresh = {
        name: dataclasses.asdict(type(group)())
        for name, group in groups.items()
        if dataclasses.is_dataclass(group)
    }
    return json.loads(json.dumps(flatten("config", fresh))) | depends


def flatten(prefix: str, tree: dict) -> dict[str, Any]:
    """{"a": {"b": 1}} to {"prefix.a.b": 1}."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}"
        flat |= flatten(name, value) if isinstance(value, dict) else {name: value}
    return flat
