"""CIFAR-10: binary files made here, and the real data set where the shared folder has it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from sphere_jax.config.options import DataOptions
from sphere_jax.data.source import load
from sphere_jax.data.sources import cifar10

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10_jpeg.npz"
needs_real = pytest.mark.skipif(not REAL.is_file(), reason=f"no {REAL.name} in the shared folder")


def config(path, **options) -> DataOptions:
    return DataOptions(source="cifar10", path=str(path), **dict(channels=3) | options)


def refusal(path, **options) -> str:
    return refusal_of(load, config(path, **options))


@pytest.fixture(scope="module")
def planes():
    """Red, green and blue of the last record of each file."""
    return np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def binary(tmp_path_factory, planes):
    folder = tmp_path_factory.mktemp("cifar-10-batches-bin")
    for i, name in enumerate(cifar10.FILES):
        records = np.full((10_000, 3073), i, np.uint8)
        records[:, 0] = np.arange(10_000) % 10
        records[-1, 1:] = planes[i].ravel()
        records.tofile(folder / name)
    yield folder
    for name in cifar10.FILES:  # 180 MB
        (folder / name).unlink()


def test_the_official_split_of_the_binary_version(binary, planes):
    split = load(config(binary))
    train, test = split.train.arrays["images"], split.heldout.arrays["images"]
    assert train.shape == (50_000, 32, 32, 3) and test.shape == (10_000, 32, 32, 3)
    assert train[::10_000, 0, 0, 0].tolist() == [0, 1, 2, 3, 4] and test[0, 0, 0, 0] == 5
    np.testing.assert_array_equal(train[9_999::10_000], planes[:5].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(test[-1], planes[5].transpose(1, 2, 0))
    np.testing.assert_array_equal(split.train.labels, np.arange(50_000) % 10)
    assert split.heldout.labels.dtype == np.int32


def test_errors_of_the_binary_version(binary, tmp_path):
    assert "have 3 channels but config.data.channels=1" in refusal(binary, channels=1)
    for name in cifar10.FILES[:5]:
        (tmp_path / name).symlink_to(binary / name)
    last = tmp_path / "test_batch.bin"
    assert "has no test_batch.bin; unpack cifar-10-binary.tar.gz" in refusal(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"a pickle")
    assert "pickled Python version" in refusal(tmp_path)
    last.write_bytes(b"\0" * 3073)
    assert "test_batch.bin has 3073 bytes, not 30730000" in refusal(tmp_path)
    np.full((10_000, 3073), 10, np.uint8).tofile(last)
    assert "run from 0 to 10" in refusal(tmp_path)


@pytest.mark.parametrize("path", ["", "nowhere", "cifar-10-python.tar.gz"])
def test_neither_folder_nor_npz(path):
    assert "must be the folder cifar-10-batches-bin" in refusal(path)


def packed(tmp_path, train=3, test=2, **changes):
    """A small set in the layout of the JPEG version; every picture of its own brightness."""
    arrays = {"class_names": np.array(["a", "b"])}
    for prefix, count in (("train_", train), ("test_", test)):
        files = []
        for i in range(count):
            file = io.BytesIO()
            Image.new("RGB", (32, 32), (40 * i + 20,) * 3).save(file, "JPEG")
            files.append(file.getvalue())
        arrays[f"{prefix}jpeg_bytes"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{prefix}offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{prefix}labels"] = np.arange(count) % 10
    arrays = {name: a for name, a in (arrays | changes).items() if a is not None}
    np.savez(tmp_path / "small.npz", **arrays)
    return tmp_path / "small.npz"


def test_the_jpeg_version(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "TRAIN", 3)
    monkeypatch.setattr(cifar10, "TEST", 2)
    split = load(config(packed(tmp_path)))
    brightness = split.train.arrays["images"].mean((1, 2, 3))
    np.testing.assert_allclose(brightness, [20, 60, 100], atol=1)
    assert split.heldout.labels.tolist() == [0, 1]
    larger = load(config(tmp_path / "small.npz", image_size=40)).train.arrays["images"]
    np.testing.assert_array_equal(larger[:, 4:-4, 4:-4], split.train.arrays["images"])  # padded


def test_errors_of_the_jpeg_version(tmp_path, monkeypatch):
    assert "has 3 pictures in train_jpeg_bytes; CIFAR-10 has 50000" in refusal(packed(tmp_path))
    monkeypatch.setattr(cifar10, "TRAIN", 3)
    assert "has 2 pictures in test_jpeg_bytes; CIFAR-10 has 10000" in refusal(packed(tmp_path))
    assert "lacks the array 'test_offsets'" in refusal(packed(tmp_path, test_offsets=None))
    assert "There is no file" in refusal(tmp_path / "nowhere.npz")


@needs_real
@pytest.mark.slow
def test_the_real_jpeg_version():
    split = load(config(REAL))
    train = split.train.arrays["images"]
    assert train.shape == (50_000, 32, 32, 3)
    assert np.bincount(split.heldout.labels).tolist() == [1000] * 10
    some = train[::10].astype(np.float32) / 255
    np.testing.assert_allclose(some.mean((0, 1, 2)), [0.4913, 0.4821, 0.4465], atol=0.01)
    np.testing.assert_allclose(some.std((0, 1, 2)), [0.2452, 0.2428, 0.2606], atol=0.01)


@needs_real
def test_a_slice_of_the_real_jpeg_version(tmp_path):
    with np.load(REAL) as file:
        real = {name: file[name] for name in file.files}
    few = {"class_names": real["class_names"]}
    for prefix in ("train_", "test_"):
        few[f"{prefix}offsets"] = real[f"{prefix}offsets"][:201]
        few[f"{prefix}jpeg_bytes"] = real[f"{prefix}jpeg_bytes"][: few[f"{prefix}offsets"][-1]]
        few[f"{prefix}labels"] = real[f"{prefix}labels"][:200]
    np.savez(tmp_path / "few.npz", **few)
    split = load(DataOptions(source="npz", path=str(tmp_path / "few.npz"), channels=3))
    content, offsets = real["test_jpeg_bytes"].tobytes(), real["test_offsets"]
    for i in (0, 1, 199):
        picture = Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]])).convert("RGB")
        np.testing.assert_array_equal(split.heldout.arrays["images"][i], np.asarray(picture))
    np.testing.assert_array_equal(split.train.labels, real["train_labels"][:200])
