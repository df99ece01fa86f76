"""Commands start once more with an allocator that keeps memory and with huge pages, where that
helps."""

import os
import subprocess
import sys

import pytest
import tiny_run

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
    monkeypatch.setattr(allocator, "find_spec", lambda name: None)
    return tmp_path


@pytest.fixture
def kept(machine):
    library = str(machine / "packages" / allocator.LIBRARY)
    return {"LD_PRELOAD": library, "MIMALLOC_PURGE_DELAY": "60000"}


@pytest.fixture
def restarts(monkeypatch):
    found = []
    monkeypatch.setattr(os, "execve", lambda *given: found.append(given))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "sphere_jax.main", "--config=a b"])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cpu", "A": "b"})
    return found


def test_the_same_command_starts_with_both(machine, kept, restarts, monkeypatch):
    allocator.restart_with_allocator()
    ((program, command, environment),) = restarts
    assert program == sys.executable
    assert command == [sys.executable, "-m", "sphere_jax.main", "--config=a b"]
    mark = {allocator.RESTARTED: str(os.getpid())}
    assert environment == os.environ | kept | HUGE | mark
    monkeypatch.setattr(os, "environ", environment)
    allocator.restart_with_allocator()
    assert len(restarts) == 1


def test_only_once_where_the_environment_is_lost(machine, restarts, monkeypatch):
    """A sitecustomize, a wrapper or the loader itself may remove LD_PRELOAD."""
    monkeypatch.setitem(os.environ, allocator.RESTARTED, str(os.getpid()))
    allocator.restart_with_allocator()
    assert not restarts
    monkeypatch.setitem(os.environ, allocator.RESTARTED, str(os.getppid()))  # that of a parent
    allocator.restart_with_allocator()
    assert restarts


@pytest.mark.parametrize("program", [None, "<stdin>", "/dev/fd/63"])
def test_a_program_that_cannot_be_read_again(machine, restarts, monkeypatch, program):
    if program is None:
        monkeypatch.delattr(sys.modules["__main__"], "__file__")
    else:
        monkeypatch.setattr(sys.modules["__main__"], "__file__", program)
    allocator.restart_with_allocator()
    assert not restarts


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


@pytest.mark.parametrize("library", ["musl 1.2", None])
def test_other_libraries_are_left_alone(machine, monkeypatch, library):
    monkeypatch.setattr(os, "confstr", lambda name: library)
    assert allocator.settings({"JAX_PLATFORMS": "cpu"}) == {}


def test_an_older_glibc_does_not_know_the_tunable(machine, kept, monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.34")
    assert allocator.settings({"JAX_PLATFORMS": "cpu"}) == kept


@pytest.mark.parametrize("chosen", ["", "libtcmalloc.so.4"])
def test_an_allocator_of_the_user_is_kept(machine, chosen):
    assert allocator.settings({"JAX_PLATFORMS": "cpu", "LD_PRELOAD": chosen}) == HUGE


def test_pages_and_a_delay_of_the_user_are_kept(machine, kept):
    given = {"GLIBC_TUNABLES": f"{TUNABLE}=0", "MIMALLOC_PURGE_DELAY": "5"}
    found = allocator.settings({"JAX_PLATFORMS": "cpu"} | given)
    assert found == {"LD_PRELOAD": kept["LD_PRELOAD"], "MIMALLOC_ALLOW_THP": "0"}


@pytest.mark.parametrize(
    ("platforms", "installed", "used"),
    [
        ({}, (), True),
        ({}, ("libtpu",), False),
        ({}, ("jax_plugins",), False),
        ({"JAX_PLATFORMS": "cpu"}, ("libtpu", "jax_plugins"), True),
        ({"JAX_PLATFORMS": "cuda,cpu"}, (), False),
        ({"PJRT_NAMES_AND_LIBRARY_PATHS": "a:b.so"}, (), False),
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


SCRIPT = """
import os, sys
from sphere_jax.cli import run_command
from sphere_jax.common.allocator import give_back

def main(argv):
    loaded = sys.platform == "linux" and "libmimalloc" in open("/proc/self/maps").read()
    print(os.environ.get("GLIBC_TUNABLES"), argv, loaded)
    give_back()

print("start", flush=True)
run_command(main)
"""


@pytest.mark.parametrize("way", ["script", "pipe", "words"])
def test_a_real_restart(tmp_path, way):
    """Of every command: with its arguments, once, with what was asked for, and without a line of
    the loader. A program that is read from a pipe runs as it is."""
    file = tmp_path / "command.py"
    file.write_text(SCRIPT)
    words = {"script": [str(file)], "pipe": ["-"], "words": ["-c", SCRIPT]}[way]
    ours = ("GLIBC_TUNABLES", "LD_PRELOAD", allocator.RESTARTED)
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    environment["PYTHONPATH"] = str(tiny_run.ROOT)
    expected = allocator.settings(environment) if way != "pipe" else {}
    found = subprocess.run(
        [sys.executable, *words, "a b"], env=environment, text=True, capture_output=True,
        input=SCRIPT if way == "pipe" else "",
    )  # fmt: skip
    *starts, line = found.stdout.splitlines()
    tunables, loaded = expected.get("GLIBC_TUNABLES"), "LD_PRELOAD" in expected
    assert line == f"{tunables} ['a b'] {loaded}" and not found.stderr, found
    assert len(starts) == (2 if expected else 1), found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("module", ["sphere_jax.convert", "sphere_jax"])
def test_commands_of_the_shell_restart(module):
    """What the loader prints of mimalloc when it is asked to."""
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    expected = "LD_PRELOAD" in allocator.settings(environment)
    flags = ["--list"] if module.endswith("convert") else ["convert", "--list"]
    found = subprocess.run(
        [sys.executable, "-m", module, *flags],
        env=environment | {"MIMALLOC_VERBOSE": "1"}, text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert ("mimalloc: process init" in found.stderr) == expected, found.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_given_back_on_demand():
    """Half a GB that NumPy has freed is free for others before memory is counted."""
    script = (
        "import numpy as np; from sphere_jax.common.allocator import give_back; "
        "held = lambda: int(open('/proc/self/statm').read().split()[1]) >> 8; "
        "x = np.ones(1 << 26); full = held(); del x; give_back(); print(full - held())"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], text=True, capture_output=True, check=True
    )
    assert int(found.stdout) > 500, found
