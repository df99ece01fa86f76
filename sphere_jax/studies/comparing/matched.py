"""What arms of one seed must share, as hashes of the arrays: W/ARM/matched.json.

Arms are compared with the baseline of their seed. An item may differ only where a value explains
it in which the two configs differ: another `model.width` has other initial weights, but no other
order of batches.
"""

import json
from pathlib import Path

import jax
import numpy as np

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json, write_json
from sphere_jax.config.options import Config
from sphere_jax.data.pipeline import index_batches
from sphere_jax.methods.base import Method
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.runs.drawing import balanced_labels
from sphere_jax.runs.provenance import initial_params
from sphere_jax.runs.run import Run
from sphere_jax.sampling import noise_of, sample_keys
from sphere_jax.studies.comparing.arms import differing_keys
from sphere_jax.training.task import stage_key

BATCHES = 64  # whose order is hashed
SAMPLES = 16  # whose noise is hashed
EXPLAINS = {  # the values that may change an item, by prefixes of their keys; GENERATOR is the
    # stage, NOISE and NETWORK the options that its method names
    "training data": ("data.", "tokenizer."),
    "data order": ("data.source", "data.path", "data.flip", "data.random_crop", "stages",
                   "GENERATOR.batch_size", "GENERATOR.steps"),
    "initial weights": ("model.", "tokenizer.", "data.image_size", "data.channels",
                        "data.num_classes", "stages", "GENERATOR.method", "GENERATOR.pretrained",
                        "NETWORK"),
    "training noise": ("stages", "GENERATOR.method", "NOISE", "tokenizer.", "data.image_size"),
    "sampling noise": ("tokenizer.", "data.image_size", "data.num_classes"),
    "reference": ("data.", "evaluation."),
}  # fmt: skip
EXPLAINS_NOTHING = ("data.threads", "data.workers")  # batches are the same, to the bit
WHERE = ("data.source", "data.path")  # with the same bytes of data they explain nothing


def matched_items(run: Run) -> dict[str, str]:
    """Hashes of what the stage that generates starts from, by item."""
    config, name, method = run.config, run.config.generator, run.generator
    settings, data = config.stage(name), config.data
    crops = data.random_crop != ()
    order = index_batches(len(run.split.train), settings.batch_size, config.seed, crops=crops)
    batches = [order[i] for i in range(min(BATCHES, settings.steps))]
    init_key, train_key = jax.random.split(stage_key(config.seed, name))  # as `init_state` does
    weights = initial_params(run, run.task(name))
    if weights is None:
        init = jax.jit(method.init, compiler_options=run_once_options())
        weights = init(init_key, method.frozen(run.artifacts))
    drawn = method.keys(jax.random.fold_in(train_key, 0), settings.batch_size)
    keys = sample_keys(jax.random.key(config.seed), np.arange(SAMPLES, dtype=np.uint32))
    noise = noise_of(keys, method.tokenizer.latent_shape)
    labels = balanced_labels(SAMPLES, data.num_classes)
    return {
        "training data": run.data_fingerprint,
        "data order": digest([rows if data.flip or crops else rows[0] for rows in batches]),
        "initial weights": digest(weights),
        "training noise": digest([drawn, method.tokenizer.latent_shape]),
        "sampling noise": digest([noise, labels]),
    }


def digest(tree) -> str:
    """Fingerprint of a tree of arrays: names, shapes and every byte."""

    def plain(leaf) -> np.ndarray:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return fingerprints.of_arrays(
        (jax.tree_util.keystr(path), plain(leaf)) for path, leaf in leaves
    )


def reference_item(results: dict) -> str:
    """What samples were scored against, from the protocol in `results.json`."""
    stamp = results["protocol"]
    used = ("features", "pixel_classifier", "reference", "samples", "precision_recall",
            "image_shape")  # fmt: skip
    text = json.dumps({key: stamp[key] for key in used}, sort_keys=True)
    return fingerprints.of_text(text)


def write_matched(run: Run) -> None:
    """Measured when an arm starts, and again until one of its stages has started."""
    started = any((run.workdir / "stages").glob("*.json"))
    if not started or read_matched(run.workdir) is None:
        write_json(run.workdir / "matched.json", matched_items(run), sealed=True)


def read_matched(workdir: Path) -> dict[str, str] | None:
    """None where the arm has not started. Raises UserError for a damaged file."""
    found = read_json(workdir / "matched.json")
    return None if found is None else {name: str(value) for name, value in found.items()}


def explanation(item: str, baseline: Config, config: Config) -> list[str]:
    """The keys in which two configs differ that make `item` differ.

    The random numbers of a stage depend on its name: with the same generating stage, other stages
    explain nothing.
    """
    name = config.generator or ""
    starts = {start.replace("GENERATOR", name) for start in EXPLAINS[item]} - {"NOISE", "NETWORK"}
    method = config.method(name) if name else Method
    for kind, options in (("NOISE", method.noise_options), ("NETWORK", method.network_options)):
        if kind in EXPLAINS[item]:
            starts |= {f"{name}.{option}" for option in options}
    if baseline.generator == config.generator:
        starts -= {"stages"}
    keys = (key for key in differing_keys(baseline, config) if key.startswith(tuple(starts)))
    return [key for key in keys if key not in EXPLAINS_NOTHING]


Started = tuple[str, dict[str, str], Config]  # name, items, config


def check_matched(where: Path, seed: int, arm: Started, baseline: Started) -> dict[str, str]:
    """ "yes", or the keys that explain a difference, by item.

    Raises:
      UserError: an item differs that should not.
    """
    (name, items, config), (other, expected, its) = arm, baseline
    data = "training data"
    same_data = data in items and items[data] == expected.get(data)
    found = {}
    for item in (item for item in EXPLAINS if item in items and item in expected):
        found[item] = "yes"
        if items[item] == expected[item]:
            continue
        keys = explanation(item, its, config)
        if same_data and item == "data order":
            keys = [key for key in keys if key not in WHERE]
        if not keys:
            raise UserError(
                f"Arms '{name}' and '{other}' of seed {seed} in {where} are not matched: their "
                f"{item} differ, and no value in which their configs differ explains it."
            )
        found[item] = f"no: {', '.join(keys)}"
    return found
