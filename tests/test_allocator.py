"""Commands start once more with an allocator that keeps memory and with huge pages, where that
helps."""

import os
import subprocess
import sys

import pytest

from sphere_jax.common import allocator

TUNABLE = "glibc.malloc.hugetlb"
HUGE = {"GLIBC_TUNABLES": f"{TUNABLE}=1"}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A folder of packages with mimalloc in it, where the kernel gives huge pages on request."""
    state = tmp_path / "enabled"
    state.write_text("always [madvise] never\n")
    library = tmp_path / "packages" / allocator.LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(allocator, "STATE", state)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none"), str(tmp_path / "packages")])
    return tmp_path


@pytest.fixture
def kept(machine):
    library = str(machine / "packages" / allocator.LIBRARY)
    return {"LD_PRELOAD": library, "MIMALLOC_PURGE_DELAY": "60000"}


def test_the_same_command_starts_with_both(machine, kept, monkeypatch):
    restarts = []
    monkeypatch.setattr(os, "execve", lambda *given: restarts.append(given))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "sphere_jax.main", "--config=a b"])
    monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cpu", "A": "b"})
    allocator.restart_with_allocator()
    ((program, command, environment),) = restarts
    assert program == sys.executable
    assert command == [sys.executable, "-m", "sphere_jax.main", "--config=a b"]
    assert environment == {"JAX_PLATFORMS": "cpu", "A": "b"} | kept | HUGE
    monkeypatch.setattr(os, "environ", environment)
    allocator.restart_with_allocator()
    assert len(restarts) == 1


def test_other_tunables_stay(machine, kept):
    given = {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.check=1"}
    tunables = {"GLIBC_TUNABLES": f"glibc.malloc.check=1:{TUNABLE}=1"}
    assert allocator.settings(given) == kept | tunables


@pytest.mark.parametrize("pages", ["[always] madvise never", "always madvise [never]", None])
def test_of_other_kernels_the_pages_are_left_alone(machine, kept, pages):
    if pages is None:
        allocator.STATE.unlink()
    else:
        allocator.STATE.write_text(pages)
    assert allocator.settings({"JAX_PLATFORMS": "cpu"}) == kept


@pytest.mark.parametrize("library", ["glibc 2.31", "musl 1.2", None])
def test_other_libraries_are_left_alone(machine, monkeypatch, library):
    monkeypatch.setattr(os, "confstr", lambda name: library)
    assert allocator.settings({"JAX_PLATFORMS": "cpu"}) == {}


@pytest.mark.parametrize("chosen", ["", "libtcmalloc.so.4"])
def test_an_allocator_of_the_user_is_kept(machine, chosen):
    assert allocator.settings({"JAX_PLATFORMS": "cpu", "LD_PRELOAD": chosen}) == HUGE


def test_pages_and_a_delay_of_the_user_are_kept(machine, kept):
    given = {"GLIBC_TUNABLES": f"{TUNABLE}=0", "MIMALLOC_PURGE_DELAY": "5"}
    found = allocator.settings({"JAX_PLATFORMS": "cpu"} | given)
    assert found == {"LD_PRELOAD": kept["LD_PRELOAD"]}


@pytest.mark.parametrize(
    ("platforms", "installed", "used"),
    [
        ({}, (), True),
        ({}, ("libtpu",), False),
        ({}, ("jax_plugins",), False),
        ({"JAX_PLATFORMS": "cpu"}, ("libtpu", "jax_plugins"), True),
        ({"JAX_PLATFORMS": "cuda,cpu"}, (), False),
    ],
)
def test_mimalloc_is_for_the_cpu_alone(machine, monkeypatch, platforms, installed, used):
    monkeypatch.setattr(allocator, "find_spec", lambda name: name in installed or None)
    assert ("LD_PRELOAD" in allocator.settings(platforms)) == used


def test_without_mimalloc_or_with_a_path_that_the_loader_cuts(machine, monkeypatch):
    (machine / "my packages").symlink_to(machine / "packages")
    for path in ([str(machine)], [str(machine / "my packages")]):
        monkeypatch.setattr(sys, "path", path)
        assert allocator.settings({"JAX_PLATFORMS": "cpu"}) == HUGE


def test_a_real_restart(tmp_path):
    """With its arguments, only once, and with what was asked for; on any machine the command
    runs, without a line of the loader."""
    script = (
        "import os, sys; from sphere_jax.common.allocator import restart_with_allocator as go; "
        "print('start', flush=True); go(); print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:]); "
        "print('libmimalloc' in open('/proc/self/maps').read() if sys.platform == 'linux' else '')"
    )
    ours = ("GLIBC_TUNABLES", "LD_PRELOAD")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    expected = allocator.settings(environment)
    found = subprocess.run(
        [sys.executable, "-c", script, "a b"], env=environment, text=True, capture_output=True
    )
    *starts, line, loaded = found.stdout.splitlines()
    assert line == f"{expected.get('GLIBC_TUNABLES')} ['a b']" and not found.stderr, found
    assert len(starts) == (2 if expected else 1), found
    assert loaded in ("", str("LD_PRELOAD" in expected)), found
