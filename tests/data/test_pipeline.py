"""Batches: their order, their flips, how they resume, where they lie; and mapping over arrays."""

import threading

import grain
import jax
import numpy as np
import pytest
from PIL import Image

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.lazy_pictures import Pictures
from sphere_jax.data.pipeline import (
    Batches,
    ReadRows,
    index_batches,
    local_rows,
    map_batched,
    to_device,
    to_host,
)
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import batch_sharding, make_mesh

COUNT = 50


@pytest.fixture(scope="module")
def sharding():
    return batch_sharding(make_mesh())


@pytest.fixture(scope="module")
def source():
    images = np.arange(COUNT * 4, dtype=np.uint8).reshape(COUNT, 2, 2, 1)
    return Source({"images": images, "labels": np.arange(COUNT, dtype=np.int32)})


def take(batches, count, name="labels"):
    return np.stack([np.asarray(next(batches)[name]) for _ in range(count)])


def test_the_order_depends_on_the_seed_alone(source, sharding):
    first = take(Batches(source, 8, 3, sharding), 20)
    np.testing.assert_array_equal(take(Batches(source, 8, 3, sharding), 20), first)
    np.testing.assert_array_equal(take(Batches(source, 8, 3, sharding, threads=2), 20), first)
    np.testing.assert_array_equal(take(Batches(source, 8, 3, sharding, flip=True), 20), first)
    assert (take(Batches(source, 8, 4, sharding), 20) != first).any()


def test_the_order_is_that_of_runs_that_have_started():
    """As grain shuffles, batches and draws by itself."""

    def with_flips(indices, rng):
        return indices, rng.random(len(indices)) < 0.5

    plain = grain.MapDataset.range(COUNT).seed(7).shuffle().repeat()
    plain = plain.batch(8, drop_remainder=True).random_map(with_flips)
    ours, some = index_batches(COUNT, 8, 7), index_batches(COUNT, 8, 7, np.array([1, 5]))
    assert len(ours) == len(plain)
    for batch in (0, 1, 5, 6, 7, 1000):
        for expected, found, part in zip(plain[batch], ours[batch], some[batch], strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(part, expected[[1, 5]])
    assert ours[0][0].tolist() == [28, 9, 0, 45, 29, 30, 17, 6]
    assert np.flatnonzero(ours[0][1]).tolist() == [1, 3, 4, 5, 7]


def test_the_order_of_examples_does_not_depend_on_the_batch_size(source, sharding):
    small, large = Batches(source, 4, 0, sharding), Batches(source, 8, 0, sharding)
    np.testing.assert_array_equal(take(small, 20).ravel(), take(large, 10).ravel())


def test_every_epoch_holds_every_example_once_in_another_order(source, sharding):
    epochs = take(Batches(source, 10, 0, sharding), 10).reshape(2, COUNT)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(COUNT), (2, 1)))
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("seen", [0, 1, 9])  # 9 batches of 8 are well into the second epoch
def test_a_state_resumes_exactly(source, sharding, threads, seen):
    options = dict(flip=True, threads=threads)
    whole = Batches(source, 8, 0, sharding, **options)
    for _ in range(seen):
        next(whole)
    state = whole.state
    rest = take(whole, 12, "images")
    resumed = Batches(source, 8, 0, sharding, **options)
    take(resumed, 2)  # wherever it stood
    resumed.set_state(state)
    assert resumed.state == state
    np.testing.assert_array_equal(take(resumed, 12, "images"), rest)


class OfProcess:
    """The sharding of a batch as process `number` of `count` sees it, two devices each."""

    def __init__(self, number, count):
        self.devices = 2 * number, 2 * number + 1
        self.parts = 2 * count

    def addressable_devices_indices_map(self, shape):
        each = shape[0] // self.parts
        return {i: (slice(i * each, (i + 1) * each),) for i in self.devices}


def test_runs_resumed_on_other_numbers_of_processes_read_every_example_once(source, sharding):
    """Three epochs of 50 in batches of 24, of which 1, 4, 2, 3, 1 processes read one after the
    other some: together they read what one alone reads, and in an epoch every example once."""
    alone = take(Batches(source, 24, 0, sharding, flip=True), 7, "images")
    read = []
    for count, numbers in ((1, [0, 1]), (4, [2]), (2, [3, 4]), (3, [5]), (1, [6])):
        for number in numbers:
            whole = []
            for process in range(count):
                rows = local_rows(24, OfProcess(process, count))
                assert len(rows) == 24 // count
                order = index_batches(COUNT, 24, 0, rows)
                whole.append(ReadRows(source, flip=True, alone=True)(order[number]))
            images, labels = (
                np.concatenate([part[name] for part in whole]) for name in ("images", "labels")
            )
            np.testing.assert_array_equal(images, alone[number])
            read += labels.tolist()
    for epoch in range(3):
        assert sorted(read[epoch * COUNT : (epoch + 1) * COUNT]) == list(range(COUNT))


class Watched(Source):
    """Notes which threads read it, and fails at one example."""

    def stored(self, indices, mirrored=None):
        readers.add(threading.get_ident())
        if len(self) == COUNT - 1 and 7 in indices:
            raise UserError("picture 7 cannot be read")
        return super().stored(indices, mirrored)


readers = set()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_read_instead_of_the_main_thread(source, sharding, threads):
    readers.clear()
    expected = take(Batches(source, 8, 0, sharding, flip=True), 12, "images")
    watched = Batches(Watched(source.arrays), 8, 0, sharding, flip=True, threads=threads)
    np.testing.assert_array_equal(take(watched, 12, "images"), expected)
    assert (threading.get_ident() in readers) == (threads == 0)
    assert len(readers) <= max(threads, 1)


@pytest.mark.parametrize("threads", [0, 2])
def test_unreadable_files_are_user_errors_in_any_thread(source, sharding, threads):
    few = Watched({name: array[: COUNT - 1] for name, array in source.arrays.items()})
    with pytest.raises(UserError) as caught:
        take(Batches(few, 8, 0, sharding, threads=threads), 7)
    assert str(caught.value) == "picture 7 cannot be read"


def test_flips_mirror_half_of_the_images_and_come_with_the_seed(source, sharding):
    plain = Batches(source, 25, 0, sharding)
    flipped = Batches(source, 25, 0, sharding, flip=True)
    before, after = take(plain, 40, "images"), take(flipped, 40, "images")
    same = (before == after).all((2, 3, 4))
    mirrored = (before[:, :, :, ::-1] == after).all((2, 3, 4))
    assert (same ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6
    again = take(Batches(source, 25, 0, sharding, flip=True), 40, "images")
    np.testing.assert_array_equal(after, again)


def test_random_crops_come_with_the_seed_and_leave_order_and_flips(tmp_path, sharding):
    images = np.random.default_rng(0).integers(0, 256, (12, 24, 36, 3), dtype=np.uint8)
    names = [f"{i}.png" for i in range(12)]
    for name, pixels in zip(names, images, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    data = DataOptions(image_size=16, channels=3, random_crop=(16, 20))
    pictures = Pictures(tmp_path, np.array(names, object), np.zeros(12, int), data)
    files = Source({"images": pictures, "labels": np.arange(12, dtype=np.int32)})

    def drawn(**options):
        batches = Batches(files, 6, 0, sharding, flip=True, **options)
        found = [next(batches) for _ in range(4)]
        return [np.concatenate([np.asarray(b[k]) for b in found]) for k in ("images", "labels")]

    centres, order = drawn()
    crops, same_order = drawn(crops=True)
    np.testing.assert_array_equal(order, same_order)
    assert crops.shape == centres.shape and (crops != centres).any((1, 2, 3)).mean() > 0.7
    for threads in (1, 3):
        np.testing.assert_array_equal(drawn(crops=True, threads=threads)[0], crops)
    first, second = (crops[order == label] for label in (0, 1))
    assert len(first) == 2 and (first[0] != first[1]).any() and (second[0] != second[1]).any()
    np.testing.assert_array_equal(files.read(np.arange(12))["images"], pictures[:])  # centres


def test_latents_are_never_flipped(sharding):
    z = np.arange(40, dtype=np.float32).reshape(10, 1, 2, 2)
    latents = Source({"latents": z, "labels": np.arange(10, dtype=np.int32)})
    batch = next(Batches(latents, 10, 0, sharding, flip=True))
    np.testing.assert_array_equal(np.asarray(batch["latents"]), z[np.asarray(batch["labels"])])


def test_rows_of_one_process_land_where_they_belong(sharding):
    rows = np.arange(6)
    batch = to_device({"x": rows * 10}, rows, 6, sharding)
    assert isinstance(batch["x"], jax.Array) and batch["x"].sharding == sharding
    np.testing.assert_array_equal(to_host(batch["x"]), rows * 10)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
def test_mapping_pads_the_last_batch_and_cuts_it_again(sharding, count, monkeypatch, capsys):
    monkeypatch.setattr("sphere_jax.common.progress.INTERVAL", 0.0)
    x, y = np.arange(count, dtype=np.float32), np.ones((count, 2), np.float32)
    sizes = []

    def function(x, y):
        sizes.append(len(x))
        return {"sum": x[:, None] + y, "x": x}

    out = map_batched(function, (x, y), 8, sharding, "sums")
    np.testing.assert_array_equal(out["sum"], x[:, None] + y)
    np.testing.assert_array_equal(out["x"], x)
    assert set(sizes) == {8}
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"sums {count}/{count}  ")
