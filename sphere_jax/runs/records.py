"""The record of a stage, W/stages/NAME.json: what its weights depend on, compared with a config.

It prevents stages of different configs in one folder. A record may be older than some options: one
that it lacks counts as its default, a renamed one as the new one.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json, write_json
from sphere_jax.common.processes import is_main_process, told_by_main_process
from sphere_jax.common.progress import log
from sphere_jax.config.option import Leaf, current_value, leaves
from sphere_jax.config.options import Config
from sphere_jax.training.optimizers import learning_rates
from sphere_jax.weights.stored import fingerprint_of

FINGERPRINT = " fingerprint"  # of the file that an option names
DATA = "data fingerprint"


def options_of(config: Config, groups: Iterable[str] | None = None) -> dict[str, Leaf]:
    """Every option of a config, or of some of its groups, by its key, say "config.flow.steps"."""
    every, found = _groups(config), {}
    for name in sorted(every) if groups is None else groups:
        if dataclasses.is_dataclass(every[name]):
            found |= leaves(f"config.{name}", every[name])
        else:
            found[f"config.{name}"] = Leaf(every[name], {})
    return found


def check_weights_exist(config: Config) -> None:
    """Raises UserError for an option that names weights that are missing or damaged."""
    for leaf in options_of(config, (*config.stages, "tokenizer", "evaluation")).values():
        if leaf.file and leaf.value:
            fingerprint_of(leaf.value)


def read_record(file: Path) -> dict | None:
    """A stage's record; None if it has not started. Raises UserError if it is damaged."""
    fix = "delete it and run sphere_jax.main again, which finds the stage's checkpoints"
    record = read_json(file, fix)
    if record is None:
        return None
    kinds = {"depends": dict, "finished": bool}
    kinds |= {"metrics": dict} if record.get("finished") is True else {}
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            raise UserError(
                f"{file} is damaged (its '{key}' is missing or no {kind.__name__}); {fix}."
            )
    return record


@dataclasses.dataclass(frozen=True)
class Records:
    """Those of one run: {"depends": {...}, "finished": bool, "metrics": {...}} a stage."""

    config: Config
    workdir: Path
    data_fingerprint: Callable[[str], str]  # like another one; called only to compare records
    data_dates: Callable[[], dict[str, str]] = dict  # of files, if the fingerprint is of samples

    def file(self, name: str) -> Path:
        return self.workdir / "stages" / f"{name}.json"

    def read(self, name: str, check: bool = False) -> dict | None:
        """That of stage `name`, None if it has not started.

        Raises UserError if it is damaged or, with `check`, of another config.
        """
        record = read_record(self.file(name))
        if check and record:
            self.compare(name, record, f"{self.workdir} holds stage '{name}'")
        return record

    def compare(self, name: str, record: dict, what: str) -> None:
        """Raises UserError, about `what`, unless `record` is one of this config, or of a last
        stage in fewer steps that can go on."""
        now = self.depends(name, record["depends"])
        differs = difference(record["depends"], now, self.config)
        if differs and not self._goes_on(name, record["depends"], now, what):
            raise UserError(f"{what} with {differs}; {_elsewhere(self.workdir)}")

    def _goes_on(self, name: str, before: dict, now: dict, what: str) -> bool:
        """Whether `now` differs in nothing but more steps, with the same first ones.

        Raises UserError where it has more steps and they would be others.
        """
        key, optimizer = f"config.{name}.steps", self.config.stage(name).optimizer
        old, new = renamed(before, self.config).get(key), now[key]
        if type(old) is not int or not 0 < old < new:
            return False
        if difference(before | {key: new}, now, self.config):
            return False
        reason = ""
        if name != self.config.stages[-1]:
            reason = "later stages were trained on it"
        elif (learning_rates(optimizer, old) != learning_rates(optimizer, new)[:old]).any():
            reason = f"its learning rates ('{optimizer.schedule}') depend on its length"
        if reason:
            raise UserError(
                f"{what} with {key}={old}, not {new}, and cannot go on, because {reason}; "
                f"{_elsewhere(self.workdir)}"
            )
        return True

    def claim(self, name: str) -> dict:
        """That of stage `name`, started if new or if it goes on in more steps. Raises UserError as
        `read` does with `check`."""
        # As the first process sees it: another host may remember that there was none.
        record = told_by_main_process(self.read(name, check=True))
        before = record["depends"] if record else {}
        now, dates = self.depends(name, before), self.data_dates()
        self._say_dates(name, (record or {}).get("data dates", dates), dates)
        if record is None or difference(before, now, self.config):
            record = {"depends": now, "finished": False} | ({"data dates": dates} if dates else {})
            if is_main_process():
                (self.workdir / "results.json").unlink(missing_ok=True)  # of a finished run
                write_json(self.file(name), record, sealed=True)
        return record

    def _say_dates(self, name: str, before: dict[str, str], now: dict[str, str]) -> None:
        for file in now:
            if before.get(file) != now[file]:
                log(
                    f"{name}: {file} has changed since the stage was started ({now[file]}, not "
                    f"{before.get(file)}); its size and what is sampled of it are the same"
                )

    def check_stages(self) -> None:
        """Raises UserError if the folder holds a stage that the config does not have."""
        found = sorted(file.stem for file in (self.workdir / "stages").glob("*.json"))
        for name in (name for name in found if name not in self.config.stages):
            raise UserError(
                f"{self.workdir} holds stage '{name}', which this config does not have; give "
                "another --workdir, or the config that started this one."
            )

    def check_trained(self, name: str, record: dict) -> None:
        """Raises UserError unless the config is the one that a finished stage was trained with.

        Compares what training compares, except the data, which sampling does not read, and files
        of weights that training alone reads: they may be gone.
        """
        before = {key: v for key, v in record["depends"].items() if not key.endswith(FINGERPRINT)}
        before.pop(DATA, None)
        if differs := difference(before, self._values(name), self.config):
            raise UserError(
                f"{self.workdir / 'config.json'} was edited: stage '{name}' was trained with "
                f"{differs}; restore that file, or run sphere_jax.main with the config that "
                "started this run."
            )
        for key, leaf in options_of(self.config, ("tokenizer",)).items():
            trained_on = record["depends"].get(f"{key}{FINGERPRINT}")
            if leaf.file and trained_on != (fingerprint_of(leaf.value) if leaf.value else None):
                raise UserError(
                    f"{leaf.value!r} ({key}) has other weights than those that stage '{name}' of "
                    f"{self.workdir} was trained on; restore the old file."
                )

    def depends(self, name: str, like: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Every value that the weights of stage `name` are a function of, to be compared with those
        of a record, `like`, which may be of an older version."""
        files = {
            f"{key}{FINGERPRINT}": fingerprint_of(leaf.value)
            for key, leaf in self._options(name).items()
            if leaf.file and leaf.value
        }
        return self._values(name) | files | {DATA: self.data_fingerprint(like.get(DATA, ""))}

    def _values(self, name: str) -> dict[str, Any]:
        """Those of them that the config holds, as JSON gives them back."""
        options = self._options(name).items()
        flat = {key: leaf.value for key, leaf in options if moves_weights(leaf)}
        if "projection" in self._read_for(name):
            flat["projection"] = self.config.space.projection
        flat["earlier stages"] = self._until(name)[:-1]
        return json.loads(json.dumps(flat))

    def _groups_of(self, name: str) -> list[str]:
        """The groups of the config that the weights of stage `name` depend on."""
        read = self._read_for(name) - {"projection"}
        return sorted({"seed", "data", "tokenizer", *self._until(name)} | read)

    def _read_for(self, name: str) -> set[str]:
        """What stage `name` reads, and the earlier stages that it builds on."""
        return {group for stage in self._until(name) for group in self.config.method(stage).reads}

    def _options(self, name: str) -> dict[str, Leaf]:
        """The options that the weights of stage `name` depend on."""
        found = options_of(self.config, self._groups_of(name))
        parts = [self.config.method(stage).reads_of_tokenizer for stage in self._until(name)]
        if None in parts:
            return found
        read = {f"config.tokenizer.{key}" for part in parts for key in part}
        return {k: leaf for k, leaf in found.items() if not _of_tokenizer(k) or k in read}

    def _until(self, name: str) -> tuple[str, ...]:
        stages = self.config.stages
        return stages[: stages.index(name) + 1]


def _elsewhere(workdir: Path) -> str:
    return (
        f"give another --workdir (--from_run={workdir} takes the finished stages that do not "
        "differ), or the config and the version that started this one."
    )


def moves_weights(leaf: Leaf) -> bool:
    """Whether another value gives other weights. Of a file, only its content counts."""
    return leaf.moves == "weights" and not leaf.file


def difference(before: dict[str, Any], now: dict[str, Any], config: Config) -> str | None:
    """The first value in which a record differs from what `config` asks for `now`, or None.

    Both are flat, "config.flow.steps" and so on, as `Records.depends` gives them.
    """
    before = renamed(before, config)
    known = completed(before, config)
    # Keys of both first: the name of a plug-in explains its options.
    for key in sorted(now, key=lambda key: (key not in before, key)):
        if known.get(key) != now[key]:
            return f"{key}={known.get(key)!r}, not {now[key]!r}"
    options = options_of(config)
    for key in sorted(before.keys() - now.keys()):  # some of the tokenizer's may not be read now
        if key.endswith(FINGERPRINT) or not key.startswith("config."):
            return f"{key}={before[key]!r}, not None"
        if key not in options or (moves_weights(options[key]) and not _of_tokenizer(key)):
            return f"{key}={before[key]!r}, which this version does not know"
    return None


def _of_tokenizer(key: str) -> bool:
    return key.startswith("config.tokenizer.")


def renamed(depends: dict[str, Any], config: Config) -> dict[str, Any]:
    """A record's values under the current names of their options, as they are written now."""
    options, new = options_of(config), {}
    for key, leaf in options.items():
        if leaf.about.get("formerly"):
            group = key.rpartition(".")[0]
            new[f"{group}.{leaf.about['formerly']}"] = key
    found = {new.get(key, key): value for key, value in depends.items()}
    return {k: current_value(options[k].about, v) if k in options else v for k, v in found.items()}


def completed(depends: dict[str, Any], config: Config) -> dict[str, Any]:
    """A record's values, with defaults for the options that it lacks; plug-ins as in `config`."""
    fresh = {}
    for name, group in _groups(config).items():
        if dataclasses.is_dataclass(group):
            default = leaves(f"config.{name}", type(group)())
            fresh |= {key: leaf.value for key, leaf in default}
    return json.loads(json.dumps(fresh)) | depends


def _groups(config: Config) -> dict[str, Any]:
    """Every group of a config by its name, those of stages among them, and its plain values."""
    every = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return every | every.pop("groups")
