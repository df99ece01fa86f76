"""A full disk, a file system that is read-only, and memory over 2,000 steps."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from drilled import FLAGS, Nursery, check_same

pytestmark = pytest.mark.slow  # 2 minutes

SHARES = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9)  # of what a whole run takes


@pytest.fixture
def disk(tmp_path):
    """A nursery with a small file system of its own, its folder, and the same seen from here."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o size=1m tmpfs {folder} && "$@"',
        "-",
    ]
    if subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    mounted[4] = mounted[4].replace('"$@"', 'exec "$@"')
    nursery = Nursery(tmp_path, *mounted)
    yield nursery, folder, Path(f"/proc/{nursery.process.pid}/root{folder}")
    nursery.close()


@pytest.mark.timeout(1800)
def test_a_full_disk_at_many_moments(disk, whole):
    """One sentence each time; with more room, the same command goes on to the same bits."""
    nursery, folder, seen = disk
    line = ("main", *FLAGS, f"--workdir={folder / 'run'}")
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in whole.rglob("*"))
    for share in SHARES:
        room = f"size={int(share * needed)}"
        code, out, err = nursery.run(*line, hooks=[("remount", str(folder), room)])
        said = f"{room}: {code}\n{out}\n{err}"
        assert code == 2 and err.count("\n") == 1, said
        assert "No space left on device" in err, said
        assert not list((seen / "run").rglob("*.tmp")), said
    code, out, err = nursery.run(*line, hooks=[("remount", str(folder), "size=64m")])
    assert code == 0, out + err
    check_same(seen / "run", whole)


@pytest.mark.timeout(900)
def test_a_file_system_that_becomes_read_only(disk, tmp_path):
    """Training says so at once; sampling and the help of a run need no writing."""
    nursery, folder, seen = disk
    line = ("main", *FLAGS, f"--workdir={folder / 'run'}")
    code, out, err = nursery.run(*line, hooks=[("remount", str(folder), "size=64m")])
    assert code == 0, out + err
    for hooks in ([("remount", str(folder), "ro")], []):
        code, out, err = nursery.run(*line, hooks=hooks)
        assert code == 2 and err.count("\n") == 1 and "Cannot write to" in err, out + err
        assert "Read-only file system" in err
    target = tmp_path / "drawn.npz"
    draw = ("sample", f"--workdir={folder / 'run'}", f"--out={target}", "--num=4")
    code, out, err = nursery.run(*draw)
    assert code == 0, out + err
    with np.load(target) as drawn:
        assert len(drawn["images"]) == 4
    code, out, err = nursery.run(*draw[:2], f"--out={folder / 'drawn.npz'}", "--num=4")
    assert code == 2 and err.count("\n") == 1 and "Read-only file system" in err, out + err


MOMENTS = {  # a function, which of its calls
    "measuring a stage": ("sphere_jax.runs.stages:write_npz", 1),
    "saving": ("sphere_jax.training.checkpoints:Checkpoints.save", 1),
    "report": ("sphere_jax.evaluation.page:write_report", 1),
}


@pytest.mark.timeout(1800)
def test_a_file_system_that_becomes_read_only_while_it_trains(disk, whole):
    """One sentence each time; once it can be written again, the same command goes on to the same
    bits."""
    nursery, folder, seen = disk
    line = ("main", *FLAGS, f"--workdir={folder / 'run'}")
    before = [("remount", str(folder), "size=64m")]
    for moment, (place, call) in MOMENTS.items():
        hooks = [*before, ("read_only_in", place, call, str(folder))]
        code, out, err = nursery.run(*line, hooks=hooks)
        said = f"{moment}: {code}\n{out}\n{err}"
        assert f"read-only in {place}" in out, said
        assert code == 2 and err.count("\n") == 1 and "Read-only file system" in err, said
        before = [("uncover", str(folder))]
    code, out, err = nursery.run(*line, hooks=before)
    assert code == 0, out + err
    check_same(seen / "run", whole)


@pytest.mark.timeout(1800)
def test_memory_is_flat_over_2000_steps(nursery, tmp_path):
    """After 1,500 others, in which allocators settle: with eight checkpoints and previews."""
    notes = tmp_path / "notes"
    flags = [
        "--config.flow.steps=4000",
        "--config.flow.checkpoint_every=250",
        "--config.flow.preview_every=250",
        "--config.flow.log_every=10",
        "--config.evaluation.every=0",
        "--config.evaluation.keep_best=",
        "--config.evaluation.samples=0",
        f"--workdir={tmp_path / 'run'}",
    ]
    code, out, err = nursery.run("main", *FLAGS, *flags, hooks=[("memory", str(notes), 50)])
    assert code == 0, out + err
    step, resident, alive = np.loadtxt(notes, int).T
    early, late = (step > 1500) & (step <= 2000), step > 3500
    growth = np.median(resident[late]) - np.median(resident[early])
    assert growth < 16e6, f"{growth / 1e6:.1f} MB in 2,000 steps: {resident.tolist()}"
    assert np.median(alive[late]) <= np.median(alive[early]) + 2, alive.tolist()
