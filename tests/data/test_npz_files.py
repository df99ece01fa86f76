"""`.npz` files as people leave them: one sentence each, before memory is taken."""

import io
import zipfile

import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.data import memory
from sphere_jax.data.npz_files import read_npz


def header(shape, dtype="|u1") -> bytes:
    buffer = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


def archive(path, **members: bytes) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "'images' of FILE is empty; write the file again by numpy.savez."),
        (b"a note", "'images' of FILE is not an array; write"),
        (b"\x93NUMPY\x01\x00\xff\xff", "is not an array"),
        (header((3,), "|O") + b"abc", "'images' of FILE holds Python objects, which are never"),
        (header((3, 10**9)) + b"abc", "is damaged: its header says 3 GB, and it holds 3 B"),
        (header((-1, 4)) + b"abc", "is damaged"),
        (header((2,)) + b"abc", "is damaged: its header says 2 B, and it holds 3 B"),
    ],
)
def test_members_that_are_no_plain_arrays(tmp_path, content, words):
    path = archive(tmp_path / "a.npz", images=content)
    assert words.replace("FILE", path) in refusal_of(read_npz, path)


def test_what_inflates_beyond_memory_is_not_read(tmp_path, monkeypatch):
    """By its header: 3 GB of which none is written here."""
    big = archive(tmp_path / "big.npz", images=header((10**4,)) + bytes(10**4))
    assert (tmp_path / "big.npz").stat().st_size < 400
    monkeypatch.setattr(memory, "available_bytes", lambda: 9_999)
    assert "big.npz would take 10 kB of memory and 10 kB are" in refusal_of(read_npz, big)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000)
    assert len(read_npz(big)["images"]) == 10**4


def test_only_what_is_wanted_is_read(tmp_path):
    both = archive(tmp_path / "a.npz", labels=header((3,)) + b"abc", notes=b"no array")
    assert read_npz(both, ("labels",), wanted=("labels",))["labels"].tolist() == [97, 98, 99]
    assert "'notes'" in refusal_of(read_npz, both)


def test_what_lacks_names_and_what_is_no_archive(tmp_path):
    np.savez(tmp_path / "adm.npz", np.zeros(3), np.zeros(3))
    sentence = refusal_of(read_npz, str(tmp_path / "adm.npz"), ("images",))
    assert "it holds ['arr_0', 'arr_1']; give arrays their names" in sentence
    np.savez(tmp_path / "many.npz", **{f"a{i:02}": np.zeros(1) for i in range(40)})
    sentence = refusal_of(read_npz, str(tmp_path / "many.npz"), ("images",))
    assert "'a07'] and more." in sentence and "a08" not in sentence
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert "not a readable .npz" in refusal_of(read_npz, str(tmp_path / "one.npy"))
    assert "There is no file" in refusal_of(read_npz, str(tmp_path))


def test_every_array_that_numpy_writes(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3).T, "b": np.float32(2), "c": np.zeros((0, 3), "<U4")}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_npz(str(tmp_path / "a.npz"))
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in arrays.items())
