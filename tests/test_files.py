"""Cache folders, sizes in words, and files that are replaced whole."""

import json
import os
import socket
import tomllib
from pathlib import Path

import pytest
from refusals import refusal_of

from sphere_jax.common import files
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import (
    SEAL,
    cache_folder,
    check_parents,
    expand_path,
    in_bytes,
    make_cache_folder,
    make_folder,
    make_parent,
    read_json,
    write_json,
    write_whole,
)
from sphere_jax.common.temporary import remove_leftovers, temporary_beside
from sphere_jax.config.config_files import load_config
from sphere_jax.config.options import DataOptions
from sphere_jax.data.class_names import read_classes
from sphere_jax.data.latent_cache import read_cache, read_index
from sphere_jax.data.npz_files import read_npz
from sphere_jax.data.pictures import read_files
from sphere_jax.runs.loading import bare_run, load_run, stored_config
from sphere_jax.training.ema_snapshots import read_snapshots
from sphere_jax.training.run_log import read_rows
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.stored import fingerprint_of

ROOT = Path(__file__).parents[1]


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


def test_paths_as_a_shell_reads_them(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("DATA", "/data")
    for given, path in [
        ("~/a/b", "/home/ada/a/b"),
        ("~", "/home/ada"),
        ("$DATA/x.npz", "/data/x.npz"),
        ("${DATA}x/~", "/datax/~"),
        ("a b/~/c", "a b/~/c"),
        ("50$", "50$"),
        ("", ""),
        (Path("$DATA/x"), "/data/x"),
    ]:
        assert expand_path(given) == path


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("$NOT_SET/x", "'$NOT_SET/x' needs $NOT_SET, which is not set: export it first."),
        ("a/${NOT_SET}", "needs $NOT_SET, which is not set"),
        ("~nobody-here/x", "starts with ~nobody-here, which is no user here; write ./~nobody-here"),
        ("a\0b", "is no path"),
        ("x" * 256, "is no path: it is too long"),
        ("x/" * 2048, "is no path: it is too long"),
        ("\ud800" * 256, "is no path"),
    ],
)
def test_paths_that_are_none(monkeypatch, path, sentence):
    monkeypatch.delenv("NOT_SET", raising=False)
    assert sentence in refusal_of(expand_path, path)


def test_folders_of_paths_that_look_mistyped_are_not_made(monkeypatch, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)
    write_whole("a/b/c/x.txt", lambda path: path.write_text("inside"))
    make_parent(here / "d" / "e" / "x.png")
    make_folder(elsewhere / "runs" / "first")
    make_parent(elsewhere / "new" / "x.png")
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()}
    assert made == {
        "here", "here/a", "here/a/b", "here/a/b/c", "here/d", "here/d/e",
        "elsewhere", "elsewhere/runs", "elsewhere/runs/first", "elsewhere/new",
    }  # fmt: skip
    for make in (make_parent, make_folder):
        for path in (elsewhere / "no" / "dir" / "x", "../no/dir/x", "/no_such/x"):
            sentence = refusal_of(make, path)
            assert sentence.endswith(f"for {path}; correct the path or make it.")
    assert not (tmp_path / "no").exists() and not (elsewhere / "no").exists()
    assert "is a folder; name a file." in refusal_of(make_parent, elsewhere)


def test_the_working_directory_may_be_the_root(monkeypatch):
    monkeypatch.chdir("/")
    check_parents("runs/a/b/c")
    assert "no folder /no_such/dir" in refusal_of(check_parents, "/no_such/dir/x.png")


def test_a_cache_folder_has_parents_made_unless_a_variable_names_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SPHERE_JAX_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    assert make_cache_folder("weights").is_dir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPHERE_JAX_WEIGHTS", "~/no/such/folder")
    assert f"There is no folder {tmp_path}/no/such" in refusal_of(make_cache_folder, "weights")


def test_leftovers_of_killed_processes(tmp_path):
    """Those of processes that may still write stay."""
    host, gone = socket.gethostname(), 2**22 + 1  # above the largest process id of Linux
    for name, stays in {
        f".first.npz.{host}.{gone}.tmp": False,
        f".a.png.{host}.{os.getpid()}.tmp": False,  # of an earlier process with our number
        f".a.png.{host}.{os.getppid()}.tmp": True,
        f".old.json.elsewhere.net.{gone}.tmp": False,
        f".new.json.elsewhere.net.{gone}.tmp": True,
        ".notes.tmp": True,
    }.items():
        file = tmp_path / "samples" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
        if name.startswith(".old"):
            os.utime(file, (1e9, 1e9))
        remove_leftovers(tmp_path)
        assert file.exists() == stays, name


def test_a_failed_write_leaves_nothing(tmp_path):
    def fill(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "page.html", fill)
    assert list(tmp_path.iterdir()) == []

    def full(temporary):
        raise OSError(28, "No space left on device")

    message = refusal_of(write_whole, tmp_path / "page.html", full)
    assert "page.html (No space left on device:" in message and "make room)" in message


def test_a_sealed_object_that_has_changed_is_damaged(tmp_path):
    """In any value, but not in its layout; one without a seal, as of older versions, is taken."""
    file, content = tmp_path / "a.json", {"b": [1, 2.5, float("nan")], "a": {3: "é"}}
    read = {"b": [1, 2.5, None], "a": {"3": "é"}}
    write_json(file, content, sealed=True)
    text = file.read_text()
    assert read_json(file) == read and SEAL in text
    file.write_text(json.dumps(dict(reversed(json.loads(text).items()))))
    assert read_json(file) == read
    for old, new in (
        ("2.5", "2.6"),
        ("null", "1"),
        ('"b"', '"c"'),
        (f'{SEAL}": "', f'{SEAL}": "0'),
    ):
        file.write_text(text.replace(old, new))
        assert "is damaged (its content has changed); mend it" in refusal_of(
            read_json, file, "mend it"
        )
    file.write_text(json.dumps(read))
    assert read_json(file) == read


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"3", b"\xff"])
def test_json_that_is_damaged(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    message = refusal_of(files.read_json, tmp_path / "a.json", "restore it")
    assert "a.json is damaged" in message and message.endswith("; restore it.")
    assert files.read_json(tmp_path / "b.json") is None


@pytest.mark.parametrize(
    "read",
    [
        stored_config,
        load_run,
        read_npz,
        read_index,
        read_cache,
        open_tensors,
        fingerprint_of,
        load_config,
        lambda path: bare_run(path, path, {}),
        lambda path: read_files([path], DataOptions()),
    ],
)
def test_library_functions_take_paths_as_text_or_objects(tmp_path, read):
    path = tmp_path / "nowhere"
    sentences = set()
    for given in (path, str(path)):
        with pytest.raises((UserError, ValueError), match="nowhere") as caught:
            read(given)
        sentences.add(str(caught.value))
    assert len(sentences) == 1
    assert read_classes(str(path)) is None and read_rows(str(path)) == []
    assert read_snapshots(str(path)) == []


def test_the_wheel_brings_configs_and_scripts():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    shared = [pattern for patterns in tools["data-files"].values() for pattern in patterns]
    brought = {file for pattern in shared for file in ROOT.glob(pattern)}
    for folder in ("configs", "configs/arms", "launch"):
        files = {file for file in (ROOT / folder).iterdir() if file.is_file()}
        assert files and files <= brought
    for package, patterns in tools["package-data"].items():
        for pattern in patterns:
            assert list((ROOT / package.replace(".", "/")).glob(pattern)), pattern


def test_leftovers_below_a_folder_and_in_it_alone(tmp_path):
    dead = f"{socket.gethostname()}.{2**22 + 1}.tmp"  # beyond the largest process number
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    gone = [tmp_path / f".x.npz.{dead}", inner / f".y.json.{dead}"]
    kept = [temporary_beside(tmp_path / "mine"), inner / ".7.tmp", inner / f"x.npz.{dead}"]
    for file in (*gone, *kept):
        file.touch()
    kept = kept[1:]  # of this very process: of an earlier one with its number
    remove_leftovers(tmp_path, below=False)
    assert not gone[0].exists() and gone[1].exists()
    remove_leftovers(tmp_path)
    assert not gone[1].exists() and all(file.exists() for file in kept)
    remove_leftovers(tmp_path / "nowhere")


def test_leftovers_that_are_folders(tmp_path):
    """Of `write_whole(alone=True)`; that of another host is old once what is in it is."""
    here, there = f".x.{socket.gethostname()}.{2**22 + 1}.tmp", ".x.elsewhere.net.7.tmp"
    for name in (here, there):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("half")
        os.utime(tmp_path / name, (1e9, 1e9))
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    os.utime(tmp_path / there / "x", (1e9, 1e9))
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_root_is_no_folder_for_results():
    assert "/ is the root of the file system; name a folder in it." in refusal_of(make_folder, "/")


@pytest.mark.parametrize("path", ["gs://bucket/run", "s3://bucket/run", "https://x.org/run"])
def test_an_object_store_is_no_folder(path):
    for given in (path, Path(path)):
        words = refusal_of(make_folder, given)
        assert "is in an object store, which has no locks, renames and appends" in words
    assert not Path(path.partition("/")[0]).exists()
