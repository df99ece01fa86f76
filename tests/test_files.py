"""Cache folders, sizes in words, and files that are replaced whole."""

from pathlib import Path

import pytest

from sphere_jax.common import files
from sphere_jax.common.files import cache_folder, in_bytes, write_whole


def test_cache_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("SPHERE_JAX_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.delenv("SPHERE_JAX_LISTINGS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("weights") == tmp_path / "mine"
    assert cache_folder("listings") == tmp_path / "sphere_jax" / "listings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("listings") == Path.home() / ".cache" / "sphere_jax" / "listings"


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2**20, "1.05 MB"), (3e12, "3,000 GB")],
)
def test_sizes_in_words(count, words):
    assert in_bytes(count) == words


def test_two_processes_may_write_one_file(tmp_path, monkeypatch):
    """One while the other does: both succeed, and the last to end wins."""
    file = tmp_path / "page.html"

    def fill(temporary):
        temporary.write_text("ours")
        with monkeypatch.context() as other:
            other.setattr(files.os, "getpid", lambda: -1)
            write_whole(file, lambda path: path.write_text("theirs"))
        assert file.read_text() == "theirs"

    write_whole(file, fill)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "ours")]
