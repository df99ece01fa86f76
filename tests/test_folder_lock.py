"""The lock of a run folder: one writer, released however its process ends."""

import os
import socket
import subprocess
import sys

import pytest
from refusals import refusal_of

from sphere_jax.common import folder_lock
from sphere_jax.common.folder_lock import only_writer

HOLDS = """
import sys, time
from pathlib import Path
from sphere_jax.common.folder_lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def enter(folder) -> None:
    with only_writer(folder):
        pass


def test_the_second_is_refused_until_the_first_ends(tmp_path):
    with only_writer(tmp_path):
        refused = refusal_of(enter, tmp_path)
        assert f"process {os.getpid()} on host {socket.gethostname()} since " in refused
        assert "wait until it ends" in refused
        (tmp_path / folder_lock.NAME).write_text("")  # before the first has written who it is
        assert "another run, which has just started;" in refusal_of(enter, tmp_path)
    enter(tmp_path)


def test_a_kill_releases_it(tmp_path):
    line = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert f"process {holder.pid} on host" in refusal_of(enter, tmp_path)
        holder.kill()
    enter(tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, capsys):
    fcntl = pytest.importorskip("fcntl")

    def without(descriptor, operation):
        raise OSError(37, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", without)
        enter(tmp_path)
    assert "its file system has no locks (No locks available)" in capsys.readouterr().out
    monkeypatch.setattr(folder_lock, "MOUNTS", tmp_path / "mounts")
    mount = "36 1 0:30 / {} rw shared:1 - {} server:/home rw,vers=3,{}"
    for kind, options in (("nfs", "local_lock=none"), ("nfs", "nolock,local_lock=all")):
        lines = [mount.format("/", "ext4", "rw"), mount.format(tmp_path, kind, options)]
        folder_lock.MOUNTS.write_text("\n".join(lines))
        enter(tmp_path)
        assert ("not on other hosts" in capsys.readouterr().out) == ("nolock" in options)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / folder_lock.NAME).mkdir()
    assert "Cannot write to" in refusal_of(enter, tmp_path)
