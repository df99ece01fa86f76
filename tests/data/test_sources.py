"""Data sets: the split is fixed, and wrong content of a file is refused in one sentence."""

import dataclasses
import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of
from sklearn.datasets import load_digits

from sphere_jax.common import fingerprints
from sphere_jax.config.options import DataOptions, source_of
from sphere_jax.data.source import Counts, load
from sphere_jax.data.sources.latents import SOURCE as LATENTS
from sphere_jax.data.splitting import every_fifth_of_each_class


def images(count=20, size=8, channels=1):
    shape = (count, size, size, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def labels(count=20):
    return np.arange(count) % 2


def npz(tmp_path, **arrays) -> DataOptions:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return DataOptions(source="npz", path=str(path), image_size=8, num_classes=2)


def refusal(data) -> str:
    return refusal_of(load, data)


def test_mnist5k_is_split_once_and_for_all():
    split = load(DataOptions())
    assert (len(split.train), len(split.heldout)) == (4000, 1000)
    assert np.bincount(split.heldout.arrays["labels"]).tolist() == [100] * 10
    assert split.train.arrays["images"].shape == (4000, 32, 32, 1)
    assert split.train.fingerprint == "8c233523518a52d2"
    assert split.heldout.fingerprint == "7d2c605ca29d9de8"
    seen = {image.tobytes() for image in split.train.arrays["images"]}
    assert not any(image.tobytes() in seen for image in split.heldout.arrays["images"])


def test_mnist5k_is_padded_and_not_resampled():
    raw, padded = load(DataOptions(image_size=28)).train, load(DataOptions(image_size=32)).train
    inner = padded.arrays["images"][:, 2:-2, 2:-2]
    np.testing.assert_array_equal(inner, raw.arrays["images"])
    assert padded.arrays["images"][:, 0].max() == 0


def test_digits_are_resized():
    small, large = (load(DataOptions(source="digits", image_size=size)).train for size in (8, 16))
    assert large.arrays["images"].shape == (len(small), 16, 16, 1)
    halved = large.arrays["images"].reshape(-1, 8, 2, 8, 2).mean((2, 4))
    assert np.corrcoef(halved.ravel(), small.arrays["images"].ravel())[0, 1] > 0.95


def test_digits_are_those_of_scikit_learn():
    digits, split = load_digits(), load(DataOptions(source="digits", image_size=8))
    held_out = every_fifth_of_each_class(digits.target)
    for source, rows in ((split.train, ~held_out), (split.heldout, held_out)):
        np.testing.assert_array_equal(source.arrays["labels"], digits.target[rows])
        expected = np.round(digits.images[rows] * (255 / 16))
        np.testing.assert_array_equal(source.arrays["images"][..., 0], expected)


def test_the_held_out_fifth_is_of_each_class():
    y = np.array([0] * 10 + [1] * 4 + [2] * 5)
    assert np.flatnonzero(every_fifth_of_each_class(y)).tolist() == [4, 9, 18]


def test_a_fingerprint_sees_one_pixel(tmp_path):
    before = load(npz(tmp_path, images=images(), labels=labels())).train.fingerprint
    assert load(npz(tmp_path, images=images(), labels=labels())).train.fingerprint == before
    other = images()
    other[0, 0, 0, 0] ^= 1
    assert load(npz(tmp_path, images=other, labels=labels())).train.fingerprint != before


def test_npz_with_its_own_test_part(tmp_path):
    arrays = dict(images=images(), labels=labels(), test_images=images(3), test_labels=labels(3))
    split = load(npz(tmp_path, **arrays))
    np.testing.assert_array_equal(split.train.arrays["images"], images())
    np.testing.assert_array_equal(split.heldout.arrays["images"], images(3))
    assert split.heldout.arrays["labels"].dtype == np.int32


def test_npz_without_a_channel_axis(tmp_path):
    split = load(npz(tmp_path, images=images()[..., 0], labels=labels()))
    assert split.train.arrays["images"].shape == (16, 8, 8, 1)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (dict(images=images()), "lacks the array 'labels'"),
        (dict(labels=labels()), "lacks the array 'images'"),
        (dict(images=images(0), labels=labels(0)), "must hold at least 1 images, not 0"),
        (
            dict(images=images().astype(float), labels=labels()),
            "must be uint8 images (N, H, W, 1 or 3), not float64",
        ),
        (dict(images=np.full((5, 8, 8, 1), np.nan), labels=labels(5)), "hold NaN or infinity"),
        (dict(images=np.full((5, 8, 8, 1), "a"), labels=labels(5)), "must be uint8 images"),
        (
            dict(images=images()[:, 0, :, 0], labels=labels()),
            "images (N, H, W, 1 or 3), not",
        ),
        (
            dict(images=images(channels=2), labels=labels()),
            "images (N, H, W, 1 or 3), not",
        ),
        (dict(images=images(channels=3), labels=labels()), "have 3 channels"),
        (
            dict(images=images(), labels=labels(19)),
            "20 integer labels, not int64 of shape (19,)",
        ),
        (
            dict(images=images(), labels=labels()[:, None]),
            "not int64 of shape (20, 1)",
        ),
        (dict(images=images(), labels=labels() / 2), "20 integer labels, not float64"),
        (dict(images=images(), labels=labels() + 2), "run from 2 to 3"),
        (dict(images=images(), labels=labels() - 1), "run from -1 to 0"),
        (dict(images=images(4), labels=labels(4)), "nothing to hold out"),
        (dict(images=np.array([{}]), labels=labels(1)), "holds Python objects, which are never"),
        (dict(images=images() // 255, labels=labels()), "hold only zeros and ones"),
        (
            dict(images=images(), labels=labels(), test_images=images(3), test_labels=labels(2)),
            "must be 3 integer labels, not int64 of shape (2,)",
        ),
        (
            dict(images=images(), labels=labels(), test_images=images(3)),
            "lacks the array 'test_labels'",
        ),
        (
            dict(images=images(), labels=labels(), test_labels=labels(3)),
            "lacks the array 'test_images'",
        ),
        (
            dict(images=images(), labels=labels(), test_images=images(3, 9), test_labels=labels(3)),
            "test_images (9, 9, 1)",
        ),
    ],
)
def test_wrong_npz(tmp_path, arrays, words):
    assert words in refusal(npz(tmp_path, **arrays))


def test_classes_of_an_npz_with_odd_labels_or_names(tmp_path):
    def classes(**changes):
        data = npz(tmp_path, **({"images": images(), "labels": labels()} | changes))
        return source_of(data).classes(dataclasses.replace(data, num_classes=0))

    assert "integer labels" in refusal_of(classes, labels=np.asarray(1))
    assert classes(classes=np.array([b"\xff", b"b"])).names == ()  # no text


def test_missing_and_corrupt_npz(tmp_path):
    data = npz(tmp_path, images=images(), labels=labels())
    content = (tmp_path / "data.npz").read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"not a zip", b"PK\3\4" + content[4:600]):
        (tmp_path / "data.npz").write_bytes(damaged)
        assert "data.npz" in refusal(data)
    flipped = bytearray(content)
    flipped[300] ^= 255
    (tmp_path / "data.npz").write_bytes(flipped)
    assert "data.npz" in refusal(data)
    (tmp_path / "data.npz").unlink()
    assert "There is no file" in refusal(data)
    assert "There is no file ''" in refusal(DataOptions(source="npz"))


def packed(prefix="", count=20, side=12) -> dict[str, np.ndarray]:
    """Encoded pictures in one array of bytes."""
    files = []
    for image in images(count, side, 3):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG")
        files.append(file.getvalue())
    return {
        f"{prefix}jpeg_bytes": np.frombuffer(b"".join(files), np.uint8),
        f"{prefix}offsets": np.cumsum([0, *map(len, files)]),
        f"{prefix}labels": labels(count),
    }


def unpacked(arrays, prefix="", mode="RGB"):
    """Decoded one by one and resized from 12x12 to 8x8."""
    content, offsets = arrays[f"{prefix}jpeg_bytes"].tobytes(), arrays[f"{prefix}offsets"]
    pictures = [
        Image.open(io.BytesIO(content[start:stop])).convert(mode)
        for start, stop in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    resized = [np.asarray(p.resize((8, 8), Image.Resampling.BICUBIC)) for p in pictures]
    return np.stack(resized).reshape(len(resized), 8, 8, -1)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_packed_pictures_without_a_test_part(tmp_path, channels, mode):
    arrays = packed()
    split = load(dataclasses.replace(npz(tmp_path, **arrays), channels=channels))
    held = every_fifth_of_each_class(labels())
    expected = unpacked(arrays, mode=mode)
    np.testing.assert_array_equal(split.train.arrays["images"], expected[~held])
    np.testing.assert_array_equal(split.heldout.arrays["images"], expected[held])
    assert split.heldout.labels.tolist() == labels()[held].tolist()


@pytest.mark.parametrize("prefix", ["", "train_"])
def test_packed_pictures_with_their_own_test_part(tmp_path, prefix):
    arrays = packed(prefix) | packed("test_", 3)
    split = load(dataclasses.replace(npz(tmp_path, **arrays), channels=3))
    np.testing.assert_array_equal(split.train.arrays["images"], unpacked(arrays, prefix))
    np.testing.assert_array_equal(split.heldout.arrays["images"], unpacked(arrays, "test_"))
    assert split.heldout.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(offsets=None), "lacks the array 'offsets'"),
        (dict(labels=None), "lacks the array 'labels'"),
        (dict(labels=labels(19)), "20 integer labels, not int64 of shape (19,)"),
        (dict(offsets=np.arange(21.0)), "must be N + 1 integers"),
        (dict(offsets=np.arange(21)[::-1]), "must be N + 1 integers that never decrease"),
        (dict(offsets=np.array([0])), "must be N + 1 integers"),
        (dict(offsets=np.arange(21) * 10**6), "the file is not whole"),
        (dict(offsets=np.arange(21)), "Picture 0 of jpeg_bytes in"),
        (dict(jpeg_bytes=np.zeros((2, 2))), "must be uint8 (bytes,)"),
    ],
)
def test_wrong_packed_pictures(tmp_path, changes, words):
    arrays = {name: a for name, a in (packed() | changes).items() if a is not None}
    assert words in refusal(npz(tmp_path, **arrays))


def latents(tmp_path, z, y, classes=2) -> DataOptions:
    np.save(tmp_path / "latents.npy", z)
    np.save(tmp_path / "labels.npy", y)
    return latents_of(tmp_path, classes)


def latents_of(tmp_path, classes=2) -> DataOptions:
    return DataOptions(source="latents", path=str(tmp_path), num_classes=classes)


def test_latents_folder(tmp_path):
    z = np.random.default_rng(0).normal(size=(20, 2, 2, 4)).astype(np.float32)
    split = load(latents(tmp_path, z, labels()))
    held = every_fifth_of_each_class(labels())
    assert (len(split.train), len(split.heldout)) == (16, 4)
    np.testing.assert_array_equal(split.train.read(np.arange(16))["latents"], z[~held])
    np.testing.assert_array_equal(split.heldout.read(np.array([3, 0]))["latents"], z[held][[3, 0]])
    assert split.heldout.labels.tolist() == labels()[held].tolist()
    assert split.train.fingerprint != split.heldout.fingerprint


def test_held_out_latents_in_files_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    z, apart = (rng.normal(size=(n, 2, 2, 4)).astype(np.float32) for n in (20, 3))
    data = latents(tmp_path, z, labels())
    np.save(tmp_path / "test_labels.npy", np.array([1, 0, 1]))
    assert "has no test_latents.npy" in refusal(data)
    np.save(tmp_path / "test_latents.npy", apart)
    split = load(data)
    assert (len(split.train), split.heldout.labels.tolist()) == (20, [1, 0, 1])
    np.testing.assert_array_equal(split.train.read(np.arange(20))["latents"], z)
    np.testing.assert_array_equal(split.heldout.read(np.array([2, 0]))["latents"], apart[[2, 0]])
    assert split.train.fingerprint != split.heldout.fingerprint
    np.save(tmp_path / "test_labels.npy", np.array([1, 0, 2]))
    assert "run from 0 to 2" in refusal(data)
    np.save(tmp_path / "test_latents.npy", apart[:, :1])
    assert "held-out ones of shape (1, 2, 4)" in refusal(data)


def test_a_fingerprint_of_latents_needs_no_reading_of_all_of_them(tmp_path, monkeypatch, capsys):
    """They may be hundreds of gigabytes."""
    monkeypatch.setattr(fingerprints, "SAMPLED", 8)
    monkeypatch.setattr(fingerprints, "BLOCK", 16)
    z = np.random.default_rng(0).normal(size=(20, 2, 2, 4)).astype(np.float32)

    def prints():
        split = load(latents_of(tmp_path))
        return split.train.fingerprint, split.heldout.fingerprint

    latents(tmp_path, z, labels())
    found, first = [prints()], prints()
    assert first == found[0] and first[0] != first[1]
    (tmp_path / "copy").mkdir()  # with another date
    latents(tmp_path / "copy", z, labels())
    os.utime(tmp_path / "copy" / "latents.npy", (1e9, 1e9))
    copied = load(latents_of(tmp_path / "copy")).train
    assert copied.fingerprint == first[0]
    assert copied.dates == {"latents.npy": "2001-09-09 01:46:40 UTC"}
    config = SimpleNamespace(
        data=latents_of(tmp_path / "copy"), tokenizer=SimpleNamespace(latent_shape=(2, 2, 4))
    )
    LATENTS.load_for(config)
    words = "last changed 2001-09-09 01:46:40 UTC; known by its size and 8 sampled blocks"
    assert words in capsys.readouterr().out
    for changed, y in (
        (np.concatenate([z[:-1], z[-1:] + 1]), labels()),  # the last block
        (z + 1, labels()),
        (np.concatenate([z, z]), np.tile(labels(), 2)),
        (z, 1 - labels()),
    ):
        latents(tmp_path, changed, y)
        found.append(prints())
    assert len({a for a, _ in found}) == 5


def test_a_small_file_of_latents_is_known_by_all_of_it(tmp_path):
    z, found = np.zeros((20, 2, 2, 4), np.float32), set()
    for place in range(0, z.size, 7):
        z.ravel()[place] += 1
        found.add(load(latents(tmp_path, z, labels())).train.fingerprint)
    assert len(found) == len(range(0, z.size, 7))


def test_latents_are_compared_with_what_older_versions_recorded(tmp_path, monkeypatch, capsys):
    """A fingerprint of every byte, for which they are read once."""
    monkeypatch.setenv("SPHERE_JAX_LISTINGS", str(tmp_path / "listings"))
    z = np.arange(320, dtype=np.float32).reshape(20, 2, 2, 4)
    split = load(latents(tmp_path, z, labels()))
    recorded = {"train": "6671979208a7c1fc", "heldout": "1b0d340ec4f84a6d"}  # before sampling
    for part, old in recorded.items():
        assert vars(split)[part].fingerprint_like(old) == old
        new = vars(split)[part].fingerprint
        assert vars(split)[part].fingerprint_like(new) == new != old
    assert capsys.readouterr().out.count("read whole, once") == 1
    z[0, 0, 0, 0] += 1
    changed = load(latents(tmp_path, z, labels())).train
    assert changed.fingerprint_like(recorded["train"]) != recorded["train"]


@pytest.mark.parametrize(
    ("z", "y", "words"),
    [
        (np.zeros((20, 2, 2), np.float32), labels(), "must be floats (N,h,w,d)"),
        (np.zeros((20, 2, 2, 4), np.int32), labels(), "must be floats (N,h,w,d)"),
        (np.zeros((0, 2, 2, 4), np.float32), labels(0), "N > 0"),
        (
            np.zeros((20, 2, 2, 4), np.float32),
            labels(19),
            "20 integer labels, not int64 of shape (19,)",
        ),
        (np.zeros((20, 2, 2, 4), np.float32), labels() + 7, "run from 7 to 8"),
        (np.zeros((3, 2, 2, 4), np.float32), labels(3), "nothing to hold out"),
    ],
)
def test_wrong_latents(tmp_path, z, y, words):
    assert words in refusal(latents(tmp_path, z, y))


def test_missing_and_corrupt_latents(tmp_path):
    data = latents(tmp_path, np.zeros((20, 2, 2, 4), np.float32), labels())
    content = (tmp_path / "latents.npy").read_bytes()
    header = content.replace(b"'shape': (", b"'shape")  # of which numpy raises its own kind
    for damaged in (b"", content[:200], b"not an array", header):
        (tmp_path / "latents.npy").write_bytes(damaged)
        assert "latents.npy is no readable .npy array" in refusal(data)
    with (tmp_path / "latents.npy").open("wb") as file:
        np.savez(file, latents=np.zeros(3))
    assert "latents.npy is an .npz and no .npy" in refusal(data)
    (tmp_path / "labels.npy").unlink()
    assert "has no labels.npy" in refusal(data)


def test_latents_go_with_a_tokenizer_of_their_shape_that_does_not_decode(tmp_path):
    config = SimpleNamespace(
        data=latents(tmp_path, np.zeros((20, 2, 2, 4), np.float32), labels()),
        tokenizer=SimpleNamespace(latent_shape=(2, 2, 4)),
        tokenizer_class=SimpleNamespace(decodes=False),
    )
    LATENTS.check(config)
    assert len(LATENTS.load_for(config).train) == 16
    config.tokenizer.latent_shape = (4, 2, 2)
    words = "holds latents of shape (2, 2, 4) but config.tokenizer.latent_shape=(4, 2, 2)"
    assert words in refusal_of(LATENTS.load_for, config)
    config.tokenizer_class.decodes = True
    assert "go together" in refusal_of(LATENTS.check, config)
    assert "against images" in refusal_of(LATENTS.images_behind, config)


@pytest.mark.parametrize("name", ["latents.npy", "test_latents.npy"])
def test_external_latents_that_are_not_finite(tmp_path, name):
    z = np.zeros((20, 2, 2, 4), np.float16)
    data = latents(tmp_path, z, labels())
    np.save(tmp_path / "test_labels.npy", labels())
    np.save(tmp_path / "test_latents.npy", z)
    config = SimpleNamespace(data=data, tokenizer=SimpleNamespace(latent_shape=(2, 2, 4)))
    assert LATENTS.counts(config) == Counts(20, 20)
    z[7, 1, 1, 2] = np.nan
    np.save(tmp_path / name, z)
    words = refusal_of(LATENTS.load_for, config)
    assert f"Example 7 of {tmp_path / name} is not finite" in words
    assert LATENTS.counts(config) == Counts(20, 20)  # for a dry run, which reads no latents
    part = vars(load(data))["heldout" if name.startswith("test_") else "train"]
    assert f"Example 7 of {tmp_path / name} is not" in refusal_of(part.read, np.array([3, 7, 2]))
    assert part.read(np.array([3, 2]))["latents"].shape == (2, 2, 2, 4)
    z[7] = 0
    np.save(tmp_path / name, z)
    assert len(LATENTS.load_for(config).heldout) == 20


def test_external_latents_without_labels_that_count(tmp_path):
    z = np.random.default_rng(0).normal(size=(20, 2, 2, 4)).astype(np.float32)
    data = latents(tmp_path, z, labels(), 1)
    both = [
        load(dataclasses.replace(data, labels=kind, num_classes=0)) for kind in ("given", "none")
    ]
    assert not both[1].train.labels.any() and both[0].train.labels.any()
    assert both[0].train.fingerprint != both[1].train.fingerprint
