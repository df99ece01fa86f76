"""Commands start once more with huge pages, where that helps."""

import os
import subprocess
import sys

import pytest

from sphere_jax.common import huge_pages

TUNABLE = "glibc.malloc.hugetlb"


@pytest.fixture
def restarts(monkeypatch, tmp_path):
    """The commands and environments of restarts on a machine that gives huge pages on request."""
    found = []
    state = tmp_path / "enabled"
    state.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "STATE", state)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setattr(os, "execve", lambda *given: found.append(given))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "sphere_jax.main", "--config=a b"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return found


def test_the_same_command_starts_with_huge_pages(restarts, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    huge_pages.restart_with_huge_pages()
    ((program, command, environment),) = restarts
    assert program == sys.executable
    assert command == [sys.executable, "-m", "sphere_jax.main", "--config=a b"]
    assert environment == os.environ | {"GLIBC_TUNABLES": f"glibc.malloc.check=1:{TUNABLE}=1"}
    monkeypatch.setattr(os, "environ", environment)
    huge_pages.restart_with_huge_pages()
    assert len(restarts) == 1


@pytest.mark.parametrize("pages", ["[always] madvise never", "always madvise [never]", None])
def test_other_kernels_are_left_alone(restarts, pages):
    if pages is None:
        huge_pages.STATE.unlink()
    else:
        huge_pages.STATE.write_text(pages)
    huge_pages.restart_with_huge_pages()
    assert not restarts


@pytest.mark.parametrize("library", ["glibc 2.31", "musl 1.2", None])
def test_other_libraries_are_left_alone(restarts, monkeypatch, library):
    monkeypatch.setattr(os, "confstr", lambda name: library)
    huge_pages.restart_with_huge_pages()
    assert not restarts


def test_a_choice_of_the_user_is_kept(restarts, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", f"{TUNABLE}=0")
    huge_pages.restart_with_huge_pages()
    assert not restarts


def test_a_real_restart(tmp_path):
    """With its arguments, and only once; on any machine the command runs."""
    script = (
        "import os, sys; from sphere_jax.common.huge_pages import restart_with_huge_pages as go; "
        "print('start', flush=True); go(); print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    found = subprocess.run(
        [sys.executable, "-c", script, "a b"], env=environment, text=True, capture_output=True
    )
    *starts, line = found.stdout.splitlines()
    expected = "None" if len(starts) == 1 else f"{TUNABLE}=1"
    assert line == f"{expected} ['a b']" and len(starts) <= 2, found
