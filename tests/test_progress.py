"""Progress of long work: a line every so many seconds, none for quick work."""

import pytest

from sphere_jax.common import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_logged_when_due(clock, capsys):
    work = progress.Progress("samples", 5000)
    for seconds, count in ((4.0, 200), (10.0, 1200), (15.0, 1700), (20.0, 2500), (29.0, 5000)):
        clock[0] = 100.0 + seconds
        work.done(count)
    assert capsys.readouterr().out.splitlines() == [
        "samples 1,200/5,000  120.0 img/s  0:32 left",
        "samples 2,500/5,000  125.0 img/s  0:20 left",
    ]


def test_nothing_done_yet(clock, capsys):
    work = progress.Progress("written", 10, "a second")
    clock[0] += 11.0
    work.done(0)
    assert capsys.readouterr().out == "written 0/10  0.0 a second  ? left\n"


def test_other_processes_are_silent(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "is_main_process", lambda: False)
    work = progress.Progress("samples", 10)
    clock[0] += 11.0
    work.done(5)
    assert capsys.readouterr().out == ""
