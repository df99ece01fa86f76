"""Every file of a run folder, of a cache of latents and of converted weights: with a bit flipped,
cut off, and deleted. Nothing damaged is used in silence."""

import os
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from drilled import FLAGS

from sphere_jax import main
from sphere_jax.common.errors import UserError
from sphere_jax.data.latent_cache import CacheWriter, read_cache
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.runs.finished import stored_arrays
from sphere_jax.runs.loading import unloaded_run
from sphere_jax.studies.comparing.running import finished_results
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.weights.stored import load_weights, no_layouts, write_weights

SEED = int(os.environ.get("DRILL_SEED", "0"))
HOWS = ("flipped", "cut", "deleted")
choose = random.Random(SEED)


def damage(file: Path, how: str) -> str:
    """Changes `file`; says what was done."""
    content = file.read_bytes()
    at = choose.randrange(max(len(content), 1))
    if how == "deleted" or not content:
        file.unlink()
        return f"{file} deleted (seed {SEED})"
    if how == "cut":
        file.write_bytes(content[: min(at, len(content.rstrip()) - 1)])  # not a last newline alone
    else:
        bit = 1 << choose.randrange(8)
        file.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
    return f"{file} {how} at {at} of {len(content)} (seed {SEED})"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def raised(call, *arguments) -> str:
    """The sentence that a call is refused with; "" if it is not."""
    try:
        call(*arguments)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


@pytest.mark.slow  # 30 s
def test_every_file_of_a_checkpoint(copied, capsys):
    """It is named and set aside, and the checkpoint before is used; sampling refuses it."""
    folder = copied / "checkpoints" / "flow"
    sums = folder.with_name("flow.crc32") / "8.json"
    aside = folder.with_name("flow-damaged")
    noted = sums.read_bytes()
    for file in [*files_of(folder / "8"), sums]:
        whole = file.read_bytes()
        for how in HOWS:
            said = damage(file, how)
            with Checkpoints(folder) as checkpoints:
                assert checkpoints.newest_whole() == 6, said
            out = capsys.readouterr().out
            if sums.name in said and how == "deleted":  # as killed before it was written
                assert (folder / "8").is_dir() and not out
            else:
                named = file.name if file != sums else "8"
                assert named in out and "flow-damaged/8, and the one before is used" in out, said
                (aside / "8").rename(folder / "8")
            file.write_bytes(whole)
            sums.write_bytes(noted)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.newest_whole() == 8
    sums.write_text(sums.read_text().replace('"data/', '"eata/'))  # a file that is not asked for
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.newest_whole() == 6


def read_records(workdir: Path) -> None:
    """What commands read of a run folder besides checkpoints; nothing is trained."""
    run = unloaded_run(workdir)
    for name in run.config.stages:
        record = run.records.read(name)
        if record is None:
            raise UserError(f"{run.records.file(name)} is not there")
        run.records.check_trained(name, record)
        stored_arrays(workdir / "stages" / f"{name}.npz")
    if finished_results(run.config, workdir) is None:
        raise UserError(f"{workdir / 'results.json'} is not there")


@pytest.mark.slow  # 20 s
def test_every_record_of_a_run(copied):
    """A flip that is not noticed has changed nothing that is read, or in `config.json` a value that
    may be edited, as those of the sampler."""
    read_records(copied)
    names = [
        "results.json",
        *(f"stages/{n}.{kind}" for n in ("vae", "flow") for kind in ("json", "npz")),
    ]
    before = {name: stored_arrays(copied / name)[0] for name in names if name.endswith("npz")}
    for name in [*names, "config.json"]:
        file = copied / name
        whole = file.read_bytes()
        for how in (*["flipped"] * 20, "cut", "cut", "deleted"):
            said = damage(file, how)
            words = raised(read_records, copied)
            if words:
                assert name in words or "config" in words, f"{said}: {words}"
            elif name.endswith("npz"):
                assert how == "flipped", said
                for key, array in stored_arrays(file)[0].items():
                    np.testing.assert_array_equal(array, before[name][key], said)
            else:
                assert how == "flipped" and (name == "config.json" or same_json(file, whole)), said
            file.write_bytes(whole)


def same_json(file: Path, before: bytes) -> bool:
    """Whether a file that was flipped is read as what it was: without its seal, say."""
    import json

    from sphere_jax.common.files import SEAL

    def values(content: bytes) -> dict:
        return {k: v for k, v in json.loads(content).items() if len(k) != len(SEAL)}

    return values(file.read_bytes()) == values(before)


PLAN = {
    "made_with": {}, "latent_shape": [2, 2, 3], "dtype": "float32", "shard_size": 4,
    "data": {"train": "x", "heldout": "y"},
}  # fmt: skip


@pytest.mark.slow  # 5 s
def test_every_file_of_a_cache(tmp_path):
    """Whoever trains on it reads the same latents and labels, or is told the file."""
    latents = np.random.default_rng(SEED).standard_normal((6, 2, 2, 2, 3)).astype(np.float32)
    labels = {"train": np.arange(4, dtype=np.int32) % 2, "heldout": np.zeros(2, np.int32)}
    writer = CacheWriter(tmp_path, PLAN, labels, {"source": "digits", "path": ""})
    writer.write_plan()
    for shard in writer.shards:
        writer.write(shard, [latents[shard.start : shard.stop]])
    writer.write_index()

    def read() -> list[bytes]:
        parts = read_cache(tmp_path).values()
        return [
            a.tobytes()
            for cached, own in parts
            for a in (
                cached[:],
                cached.take(np.arange(len(cached)), np.ones(len(cached), bool)),
                own,
            )
        ]

    before = read()
    for file in files_of(tmp_path):
        whole = file.read_bytes()
        for how in (*["flipped"] * 40, *["cut"] * 5, "deleted"):
            said = damage(file, how)
            try:
                assert read() == before, f"{said}: other latents are read"
                noticed = ""
            except UserError as error:
                noticed = str(error)
                assert file.name in noticed or how == "deleted", f"{said}: {noticed}"
            used = file.name in ("index.json", "labels.npz") or file.suffix == ".arrayrecord"
            if used and how != "flipped":
                assert noticed, f"{said}: nothing is said"
            file.write_bytes(whole)


@pytest.mark.slow  # 5 s
def test_converted_weights(tmp_path):
    """The whole ones, or a refusal; also where a run asks for them by an option."""
    network = Network(lambda rngs: Linear(3, 5, rngs=rngs))
    params = jax.tree.map(np.asarray, network.init(jax.random.key(SEED)))
    file = tmp_path / "w.safetensors"
    write_weights(file, params, "small", "drill")
    whole = file.read_bytes()
    for how in (*["flipped"] * 300, *["cut"] * 100, "deleted"):
        said = damage(file, how)
        try:
            found = load_weights(file, "small", network, no_layouts)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
                np.testing.assert_array_equal(np.asarray(a), b, said)
            assert how == "flipped", said
        except UserError as error:
            assert file.name in str(error), said
        file.write_bytes(whole)
    words = raised(
        main.main, [*FLAGS, f"--config.vae.pretrained={file}", f"--workdir={tmp_path}/r"]
    )
    assert "w.safetensors" in words
