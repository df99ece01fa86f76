"""The record of a stage, W/stages/NAME.json: what its weights depend on, held against a config.

A record is older than the options that came after it: one that it lacks counts as its default.
"""

import dataclasses
import json
from typing import Any

from sphere_jax.options import Config

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
    ".measured",
    ".data.path",
    ".data.threads",
    ".space.retraction",  # of a sampler's steps; training takes none
    *WEIGHTS_FILES,
)
FINGERPRINT = " fingerprint"  # of the file that an option names


def difference(before: dict[str, Any], now: dict[str, Any], config: Config) -> str | None:
    """The first value in which a record differs from what `config` asks for `now`, or None.

    Both are flat, "config.flow.steps" and so on, as `Run.depends` gives them.
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
