"""Checkpoints restore every bit, or raise one sentence with the reason."""

import json
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.common.errors import UserError
from sphere_jax.distribution.mesh import replicated
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.checksums import Checksums


def state_of(step, width=6):
    rng = np.random.default_rng(step)
    params = {"net": {"kernel": jnp.asarray(rng.normal(size=(300, width)), jnp.float32)}}
    return {
        "progress": {"step": jnp.int32(step), "key": jax.random.key(step)},
        "params": params,
        "ema": jax.tree.map(lambda p: p / 3, params),
        "optimizer": {"m": (jnp.float32(np.pi), jnp.zeros((2,), jnp.bfloat16))},
    }


def bits(tree):
    def data(x):
        key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if key else x).tobytes()

    return [data(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def abstract(mesh):
    return abstract_of(mesh, state_of(0))


def abstract_of(mesh, state):
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


@pytest.fixture
def folder(tmp_path):
    """Steps 3, 6 and 9 saved, of which the newest two remain."""
    checkpoints = Checkpoints(tmp_path / "stage")
    for step in (3, 6, 9):
        checkpoints.save(step, state_of(step), {"at": [step]})
    checkpoints.close()
    return tmp_path / "stage"


def refusal(folder, abstract, item=None) -> str:
    checkpoints = Checkpoints(folder)
    with pytest.raises(UserError) as caught:
        if item is None:
            checkpoints.restore(checkpoints.latest(), abstract)
        else:
            checkpoints.restore_item(checkpoints.latest(), item, abstract[item])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_of_every_bit(folder, abstract):
    checkpoints = Checkpoints(folder)  # another start: nothing was saved by this manager
    assert checkpoints.latest() == 9
    state, data = checkpoints.restore(9, abstract)
    assert bits(state) == bits(state_of(9)) and data == {"at": [9]}
    assert bits(checkpoints.restore_item(6, "ema", abstract["ema"])) == bits(state_of(6)["ema"])
    assert sorted(file.stem for file in folder.with_name("stage.crc32").glob("*")) == ["6", "9"]


@pytest.mark.parametrize("item", ["params", "ema"])
def test_one_item_is_read_without_the_others(folder, abstract, item):
    """The average alone, or the parameters alone: the rest need not be there."""
    for other in {"params", "ema", "optimizer", "progress"} - {item}:
        shutil.rmtree(folder / "9" / other)
    found = Checkpoints(folder).restore_item(9, item, abstract[item])
    assert bits(found) == bits(state_of(9)[item])


def test_the_newest_ones_are_kept(tmp_path):
    with Checkpoints(tmp_path / "stage", keep=3) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, state_of(step), {})
    assert {path.name for path in (tmp_path / "stage").iterdir()} == {"3", "4", "5"}
    assert {path.stem for path in (tmp_path / "stage.crc32").iterdir()} == {"3", "4", "5"}


def test_sums_are_taken_in_a_thread_and_a_step_is_complete_only_when_training_asks(
    tmp_path, monkeypatch
):
    """What training writes between two questions is never missing beside a complete step."""
    threads, take = [], Checksums.take

    def watched(*arguments):
        threads.append(threading.current_thread())
        return take(*arguments)

    monkeypatch.setattr(Checksums, "take", watched)
    with Checkpoints(tmp_path / "stage") as checkpoints:
        checkpoints.save(1, state_of(1), {})
        while not checkpoints._pending.ended:
            time.sleep(0.01)
        assert threads[0] is not threading.main_thread() and checkpoints.latest() is None
        checkpoints.poll()
        assert checkpoints.latest() == 1


def test_checkpoints_that_are_in_a_bucket_are_not_looked_for_here(tmp_path):
    sums = Checksums(tmp_path / "stage.crc32")
    sums.claim("gs://b/run", taken=False)
    sums.claim("gs://b/run", taken=True)
    words = refusal_of(Checkpoints, tmp_path / "stage")
    assert (
        "stage are in gs://b/run, not in it; set config.checkpoints.store to 'gs://b/run'" in words
    )
    words = refusal_of(Checksums(tmp_path / "other.crc32").claim, "gs://b/run", True)
    assert "gs://b/run holds checkpoints of another run" in words


def test_a_start_that_fails_leaves_no_running_save_and_no_checksums(tmp_path):
    with pytest.raises(KeyError), Checkpoints(tmp_path / "stage") as checkpoints:
        checkpoints.save(3, state_of(3), {})
        raise KeyError
    assert not checkpoints._manager.is_saving_in_progress()
    assert (tmp_path / "stage" / "3").exists() and checkpoints.latest() is None


def test_an_item_that_is_empty_is_neither_stored_nor_missed(tmp_path, mesh):
    state = state_of(1) | {"profiles": {}}
    checkpoints = Checkpoints(tmp_path / "stage")
    checkpoints.save(1, state, {})
    checkpoints.close()
    assert not (tmp_path / "stage" / "1" / "profiles").exists()
    restored, _ = Checkpoints(tmp_path / "stage").restore(1, abstract_of(mesh, state))
    assert restored["profiles"] == {} and bits(restored) == bits(state)


def test_an_empty_folder_has_no_latest(tmp_path):
    assert Checkpoints(tmp_path / "none").latest() is None


def test_one_flipped_byte_is_detected(folder, abstract):
    files = [f for f in (folder / "9" / "ema").rglob("*") if f.is_file() and f.stat().st_size > 99]
    file = max(files, key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "stage/9 is damaged: ema/" in refusal(folder, abstract)
    assert "which goes back to the checkpoint before" in refusal(folder, abstract, "ema")
    Checkpoints(folder).restore_item(9, "params", abstract["params"])  # the rest is sound


def test_a_missing_file_is_detected(folder, abstract):
    next(f for f in (folder / "9" / "params").rglob("*") if f.is_file()).unlink()
    assert "lacks the file params/" in refusal(folder, abstract)


@pytest.mark.parametrize("content", ["{", "[]", "null", "{}", "3", '{"ema/d": "x"}', "\udcff"])
def test_a_damaged_file_of_checksums_is_detected(folder, abstract, content):
    """None of them turns verification off."""
    sums = folder.with_name("stage.crc32") / "9.json"
    sums.write_bytes(content.encode(errors="surrogateescape"))
    assert "has no readable file of checksums" in refusal(folder, abstract)
    assert "has no readable file of checksums" in refusal(folder, abstract, "ema")


def test_checksums_of_every_item_are_needed(folder, abstract):
    sums = folder.with_name("stage.crc32") / "9.json"
    content = json.loads(sums.read_text())
    sums.write_text(json.dumps({k: v for k, v in content.items() if not k.startswith("ema/")}))
    assert "has no readable file of checksums" in refusal(folder, abstract, "ema")


def test_training_falls_back_to_the_newest_whole_step(folder, abstract, capsys):
    """Damaged ones are kept beside the others; with none left, training starts anew."""
    (folder / "8.orbax-checkpoint-tmp").mkdir()
    for step, left in ((9, 6), (6, None)):
        next(f for f in (folder / f"{step}" / "optimizer").rglob("*") if f.is_file()).unlink()
        checkpoints = Checkpoints(folder)
        assert checkpoints.newest_whole() == left
        used = "the one before is used" if left else "there is none before it"
        assert f"stage-damaged/{step}, and {used}" in capsys.readouterr().out
        assert (folder.with_name("stage-damaged") / f"{step}" / "params").is_dir()
        if left:
            assert bits(checkpoints.restore(left, abstract)[0]) == bits(state_of(left))
    assert not list(folder.glob("*.orbax-checkpoint-tmp"))
    checkpoints.save(9, state_of(9), {"at": [9]})
    checkpoints.close()
    assert bits(Checkpoints(folder).restore(9, abstract)[0]) == bits(state_of(9))
    (folder / "9" / "_CHECKPOINT_METADATA").unlink()
    assert Checkpoints(folder).newest_whole() is None
    assert (folder.with_name("stage-damaged") / "9-1").is_dir()


@pytest.mark.parametrize("when", ["save", "wait_until_finished"])
def test_a_full_disk_leaves_nothing_half_written(folder, monkeypatch, when):
    checkpoints = Checkpoints(folder)

    def full(*_, **__):
        (folder / "12.orbax-checkpoint-tmp" / "ema").mkdir(parents=True)
        raise ValueError('RESOURCE_EXHAUSTED: Error writing "x": No space left on device\nmore')

    monkeypatch.setattr(checkpoints._manager, when, full)
    message = refusal_of(lambda: (checkpoints.save(12, state_of(12), {}), checkpoints.wait()))
    assert f"Cannot save step 12 to {folder} (No space left on device): a checkpoint" in message
    assert "takes 14.4 kB there, and" in message and "make room, and" in message
    assert sorted(path.name for path in folder.iterdir()) == ["6", "9"]
    assert Checkpoints(folder).newest_whole() == 9


def test_without_the_damaged_step_the_one_before_is_latest(folder, abstract):
    shutil.rmtree(folder / "9")
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest() == 6
    checkpoints.save(9, state_of(9), {"at": [9]})
    checkpoints.close()
    again, _ = Checkpoints(folder).restore(9, abstract)
    assert bits(again) == bits(state_of(9))


def test_a_step_without_checksums_is_ignored_and_written_again(folder, abstract):
    (folder.with_name("stage.crc32") / "9.json").unlink()  # killed between commit and checksums
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest() == 6
    checkpoints.save(8, state_of(8), {"at": [8]})  # as after a change of checkpoint_every
    checkpoints.save(9, state_of(10), {"at": [10]})
    checkpoints.close()
    state, data = Checkpoints(folder).restore(9, abstract)
    assert bits(state) == bits(state_of(10)) and data == {"at": [10]}
    assert Checkpoints(folder)._manager.all_steps() == [8, 9]


@pytest.mark.parametrize("keep", [1, 2])
def test_starts_that_are_killed_before_their_sums_cost_no_complete_step(tmp_path, abstract, keep):
    folder, sums = tmp_path / "stage", tmp_path / "stage.crc32"
    with Checkpoints(folder, keep) as checkpoints:
        for step in (2, 3):
            checkpoints.save(step, state_of(step), {})
    for step in (5, 4, 6):  # each of a start that is killed between commit and sums
        checkpoints = Checkpoints(folder, keep)
        assert checkpoints.newest_whole() == 3
        checkpoints.save(step, state_of(step), {})
        checkpoints._pending.abandon()
        assert (folder / str(step)).is_dir()
        (sums / f"{step}.json").unlink(missing_ok=True)
    with Checkpoints(folder, keep) as checkpoints:
        assert bits(checkpoints.restore(3, abstract)[0]) == bits(state_of(3))
        checkpoints.save(7, state_of(7), {})
    kept = {"3", "7"} if keep == 2 else {"7"}
    assert (
        {path.name for path in folder.iterdir()} == kept == {file.stem for file in sums.iterdir()}
    )


def test_a_reader_deletes_nothing(folder):
    (folder.with_name("stage.crc32") / "9.json").unlink()  # another process is saving it
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.latest() == 6
    assert {path.name for path in folder.iterdir()} == {"6", "9"}


def test_another_network_is_named(folder, mesh):
    wider = abstract_of(mesh, state_of(0, width=7))
    assert "is of another network: ema/net/kernel is (300, 6) there, (300, 7) here" in refusal(
        folder, wider
    )
    more = abstract_of(mesh, state_of(0))
    more["ema"]["head"] = more["ema"]["net"]
    assert "ema/head/kernel is absent there, (300, 6) here" in refusal(folder, more, "ema")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write checkpoints to"):
        Checkpoints(tmp_path / "file" / "stage")


def test_saving_does_not_wait_for_checksums(tmp_path):
    checkpoints = Checkpoints(tmp_path / "stage")
    checkpoints.save(1, state_of(1), {})
    checkpoints.wait()
    assert checkpoints.latest() == 1
    checkpoints.poll()  # nothing pending: no error
    checkpoints.close()
