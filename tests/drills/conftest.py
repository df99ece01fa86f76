"""What several drills use: a nursery and a whole run, made once."""

from pathlib import Path

import pytest
from drilled import FLAGS, Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    found = Nursery(tmp_path_factory.mktemp("nursery"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def whole(nursery, tmp_path_factory) -> Path:
    """The run as it is without interruptions; `changes.txt` beside it has every change of its
    files."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    notes = workdir.with_name("changes.txt")
    hooks = [("count", str(workdir), str(notes))]
    code, out, err = nursery.run("main", *FLAGS, f"--workdir={workdir}", hooks=hooks)
    assert code == 0, out + err
    return workdir
