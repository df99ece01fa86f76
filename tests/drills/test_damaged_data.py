"""Every file of a cache of latents, of converted weights and of snapshots of averages: with a bit
flipped, cut off, and deleted. Nothing damaged is used in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drilled import FLAGS, SEED, damage, files_of, raised

from sphere_jax import main
from sphere_jax.common.errors import UserError
from sphere_jax.data.latent_cache import CacheWriter, read_cache
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.training.ema_snapshots import combine, read_snapshots, save_snapshots
from sphere_jax.weights.stored import load_weights, no_layouts, write_weights

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


@pytest.mark.slow  # 2 s
def test_snapshots_of_averages(tmp_path):
    """The same average, or the file is named; without a file, the average of the others."""
    rng = np.random.default_rng(SEED)
    for step in (4, 8):
        tree = {"network": jnp.array(rng.standard_normal((3, 4)), jnp.float32)}
        save_snapshots(tmp_path, step, step, {"0.1": tree, "0.2": jax.tree.map(jnp.square, tree)})

    def average() -> bytes:
        return combine(read_snapshots(tmp_path), 0.15, 8, forced=True)[0]["network"].tobytes()

    before = average()
    for file in files_of(tmp_path):
        whole = file.read_bytes()
        for how in (*["flipped"] * 100, *["cut"] * 10):
            said = damage(file, how)
            try:
                assert average() == before and how == "flipped", said
            except UserError as error:
                assert file.name in str(error), f"{said}: {error}"
            file.write_bytes(whole)
    for file in files_of(tmp_path):
        file.rename(aside := tmp_path / "aside")
        assert average() != before  # its error, which is printed, is that of the other files
        aside.rename(file)
