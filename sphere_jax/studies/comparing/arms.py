"""The arms of a comparison: named sets of config values, from flags or from a file."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sphere_jax.common.errors import UserError, shortened
from sphere_jax.config.config_files import load_config, run_file
from sphere_jax.config.options import Config
from sphere_jax.data.class_names import with_classes_counted
from sphere_jax.runs.records import options_of


@dataclasses.dataclass(frozen=True)
class Arm:
    """`values` are texts by key, {"space.path": "linear"}, as they follow `--config.`."""

    name: str
    values: Mapping[str, str]

    def folder(self, seed: int) -> str:
        return f"seed{seed}-{re.sub(r'[^A-Za-z0-9._=+-]+', '-', self.name).strip('-')}"

    def overrides(self, seed: int) -> list[str]:
        given = [f"--config.{key}={value}" for key, value in self.values.items()]
        return [*given, f"--config.seed={seed}"]


def split_values(text: str) -> list[str]:
    """ "a,(1,2),b" to ["a", "(1,2)", "b"]: commas inside parentheses do not count."""
    parts = re.split(r",(?![^(]*\))", text)
    return [part.strip() for part in parts]


def vary_arms(varied: Sequence[str]) -> list[Arm]:
    """Every combination of `KEY=VALUE,VALUE,...`, named after its values. Raises UserError."""
    choices: dict[str, list[str]] = {}
    for text in varied:
        key, equals, values = text.partition("=")
        if not equals or not values or key in choices:
            raise UserError(
                f"--vary={shortened(text)} must be KEY=VALUE,VALUE, say "
                "space.path=linear,slerp, and each KEY once."
            )
        choices[key] = split_values(values)

    def name(values: tuple[str, ...]) -> str:
        if len(choices) == 1:
            return values[0]
        shown = zip(choices, values, strict=True)
        return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in shown)

    return [
        Arm(name(values), dict(zip(choices, values, strict=True)))
        for values in itertools.product(*choices.values())
        if values
    ]


def named_arm(text: str) -> Arm:
    """`NAME:KEY=VALUE,KEY=VALUE`, or `NAME:` for the config as it is. Raises UserError."""
    name, colon, rest = text.partition(":")
    pairs = [part.partition("=") for part in split_values(rest)] if rest else []
    if not colon or not name.strip() or not all(key and equals for key, equals, _ in pairs):
        raise UserError(
            f"--arm={shortened(text)} must be NAME:KEY=VALUE,KEY=VALUE, with tuples in "
            "parentheses, say plain:space.path=linear,stages=(vae,flow)."
        )
    return Arm(name.strip(), {key: value for key, _, value in pairs})


def file_arms(path: str, base: Config) -> list[Arm]:
    """What `get_arms(config)` of a file returns for the base: {name: {key: value}}.

    Raises UserError for a file that does not run, or returns something else.
    """
    found = run_file(path, "get_arms", base, folder="configs/arms")
    if not isinstance(found, Mapping) or not all(isinstance(v, Mapping) for v in found.values()):
        raise UserError(f"get_arms(config) of {path} must return {{name: {{key: value}}}}.")
    return [
        Arm(name, {key: _text(v) for key, v in values.items()}) for name, values in found.items()
    ]


def product(named: Sequence[Arm], varied: Sequence[Arm]) -> list[Arm]:
    """Every named arm in every variation; either list may be empty."""
    if not named or not varied:
        return [*named, *varied]
    return [Arm(f"{a.name}, {b.name}", {**a.values, **b.values}) for a in named for b in varied]


def plan(
    path: str, shared: list[str], arms: Sequence[Arm], seeds: Sequence[int]
) -> dict[tuple[int, str], Config]:
    """The checked config of every arm in every seed, seed by seed: all before the first one trains.

    Raises UserError for configs that are wrong, alike, without scores or in several features, and
    for names that map to the same folder.
    """
    folders = [arm.folder(0) for arm in arms]
    for arm in arms:
        if folders.count(arm.folder(0)) > 1 or arm.folder(0) == "seed0-":
            raise UserError(f"Two arms would share the folder of '{arm.name}'; name them apart.")
        if "seed" in arm.values:
            raise UserError("Every arm is run over the same seeds; give them by --seeds.")
    found = {
        (seed, arm.name): with_classes_counted(load_config(path, [*shared, *arm.overrides(seed)]))
        for seed in seeds
        for arm in arms
    }
    for config in found.values():
        if (
            not config.generator
            or not config.evaluation.samples
            or not config.tokenizer_class.decodes
        ):
            raise UserError(
                "A comparison needs scores: a stage that generates, a decoder, and "
                "config.evaluation.samples above 0."
            )
    features = {config.evaluation.features for config in found.values()}
    if len(features) > 1:
        raise UserError(
            "Arms can be compared in one kind of features: config.evaluation.features is "
            f"{' and '.join(sorted(features))}."
        )
    of_one_seed = [(arm.name, found[seeds[0], arm.name]) for arm in arms]
    for (a, one), (b, other) in itertools.combinations(of_one_seed, 2):
        if one == other:
            raise UserError(f"Arms '{a}' and '{b}' have the same config.")
    return found


def differing_keys(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """{"space.path": ("linear", "slerp")}: every value in which two resolved configs differ."""
    a, b = ({key: leaf.value for key, leaf in options_of(c).items()} for c in (one, other))
    keys = sorted(a.keys() | b.keys())
    pairs = {key.removeprefix("config."): (a.get(key), b.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
