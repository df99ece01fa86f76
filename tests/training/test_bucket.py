"""Checkpoints in a bucket: orbax, tensorstore and gcsfs as they are, on an emulator of it."""

import http.server
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import several
import tiny_run
from refusals import refusal_of
from test_checkpoints import abstract_of, bits, state_of

from sphere_jax.training.checkpoint_folder import open_folder
from sphere_jax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def store():
    """A folder of a bucket."""
    import fsspec
    from gcp_storage_emulator.server import Router, create_server

    one_at_a_time, handle = threading.Lock(), Router.handle

    def handled(router, method):  # its dictionaries are not made for threads
        with one_at_a_time:
            handle(router, method)

    port = tiny_run.free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server._api.daemon = True
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            patch.setenv(name, f"http://127.0.0.1:{port}")
        # An idle connection would block a server of one thread.
        patch.setattr(http.server, "HTTPServer", http.server.ThreadingHTTPServer)
        patch.setattr(Router, "handle", handled)
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        patch.setenv("FSSPEC_GS_TOKEN", "anon")  # the same, for other processes
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks the real service
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        server.start()
        yield "gs://bucket/runs/first"
        server.stop()


@pytest.fixture(scope="module")
def saved(store, tmp_path_factory):
    """The stage's folder: steps 3, 6 and 9 saved, of which the newest two remain."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints" / "flow"
    with Checkpoints(folder, 2, store) as checkpoints:
        for step in (3, 6, 9):
            checkpoints.save(step, state_of(step), {"at": [step]})
    return folder


def test_round_trip_of_every_bit(saved, store, mesh):
    checkpoints = Checkpoints(saved, 2, store)
    assert checkpoints.newest_whole() == 9
    abstract = abstract_of(mesh, state_of(0))
    state, data = checkpoints.restore(9, abstract)
    assert bits(state) == bits(state_of(9)) and data == {"at": [9]}
    assert bits(checkpoints.restore_item(6, "ema", abstract["ema"])) == bits(state_of(6)["ema"])
    assert not saved.exists()  # only the sums are in the run folder
    sums = saved.with_name("flow.crc32")
    assert sorted(file.name for file in sums.iterdir()) == ["6.json", "9.json", "store.txt"]
    steps = {path.name for path in open_folder(saved, store).iterdir() if path.is_dir()}
    assert steps == {"6", "9"}


def test_another_run_and_another_place_are_refused(saved, store, tmp_path):
    words = refusal_of(Checkpoints, tmp_path / "checkpoints" / "flow", 2, store)
    assert f"{store} holds checkpoints of another run" in words
    words = refusal_of(Checkpoints, saved)
    assert f"are in {store}, not in it; set config.checkpoints.store to '{store}'" in words


def test_a_changed_object_is_noticed_and_the_step_before_is_used(saved, store, mesh, capsys):
    place = open_folder(saved, store)
    (place / "12").mkdir()
    (place / "12" / "part").write_text("of a save that was killed")
    file = next(iter((place / "9" / "params" / "d").iterdir()))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with Checkpoints(saved, 2, store) as checkpoints:
        assert checkpoints.newest_whole() == 6
        assert "flow-damaged/9, and the one before is used" in capsys.readouterr().out
        assert not (place / "12").exists() and not (place / "9").exists()
        assert (place.parent / "flow-damaged" / "9" / "params").is_dir()
        restored, _ = checkpoints.restore(6, abstract_of(mesh, state_of(0)))
        assert bits(restored) == bits(state_of(6))
        checkpoints.save(9, state_of(9), {"at": [9]})
    assert Checkpoints(saved, 2, store).newest_whole() == 9


def test_a_bucket_that_is_not_there(saved, store, tmp_path):
    words = refusal_of(Checkpoints, tmp_path / "flow", 2, "gs://no-such-bucket/run")
    assert "Cannot write checkpoints to gs://no-such-bucket/run/flow" in words


def test_sharded_arrays(store, tmp_path):
    """Of all devices that are here."""
    from sphere_jax.distribution.mesh import make_mesh, put_global, tree_shardings

    mesh = make_mesh(1, jax.device_count())
    tree = {"kernel": np.arange(2**15, dtype=np.float32).reshape(256, 128)}
    state = {"params": put_global(mesh, tree, tree_shardings(mesh, tree))}
    with Checkpoints(tmp_path / "other", 2, f"{store}-sharded") as checkpoints:
        checkpoints.save(1, state, {})
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    found, _ = Checkpoints(tmp_path / "other", 2, f"{store}-sharded").restore(1, abstract)
    assert bits(found) == bits(state)


def test_two_processes_write_and_read_one_checkpoint(store, tmp_path):
    """Each its shards, four devices together; a changed object is known to both."""
    script, place = Path(__file__).with_name("on_bucket.py"), f"{store}-shared"
    found = several.results(2, script, tmp_path / "flow", place)
    expected = {"newest": 6, "same": True, "data": {"at": 6}, "after damage": 3}
    assert found == [expected] * 2
