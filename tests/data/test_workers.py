"""Processes that read: the same batches, the same states, one sentence for what is wrong."""

import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_run
from PIL import Image

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.pipeline import Batches, threads_for
from sphere_jax.data.source import Source, load
from sphere_jax.distribution.mesh import batch_sharding, make_mesh

COUNT = 30


@pytest.fixture(scope="module")
def sharding():
    return batch_sharding(make_mesh())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """COUNT training images of two classes."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", COUNT), ("val", 2)):
        for number in range(count):
            (root / part / str(number % 2)).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8))
            image.save(root / part / str(number % 2) / f"{number}.png")
    return root


def source(folder) -> Source:
    return load(
        DataOptions(source="folder", path=str(folder), image_size=8, channels=3, num_classes=2)
    ).train


def taken(batches, count):
    return [
        {name: np.asarray(array) for name, array in next(batches).items()} for _ in range(count)
    ]


def check_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_state_resumes_with_other_threads_and_workers(folder, sharding):
    pictures = source(folder)
    expected = taken(Batches(pictures, 4, 0, sharding, flip=True), 12)
    workers = Batches(pictures, 4, 0, sharding, flip=True, workers=2)
    check_same(taken(workers, 7), expected[:7])
    state = workers.state
    workers.close()
    threads = Batches(pictures, 4, 0, sharding, flip=True, threads=3)
    threads.set_state(state)
    check_same(taken(threads, 5), expected[7:])


@pytest.mark.parametrize("size", [1, 3])
def test_sources_in_files_open_them_again_in_another_process(folder, tmp_path, size):
    latents = np.random.default_rng(0).normal(size=(20, 2, 2, 4)).astype(np.float16)
    np.save(tmp_path / "latents.npy", latents)
    np.save(tmp_path / "labels.npy", np.arange(20) % 2)
    mapped = load(DataOptions(source="latents", path=str(tmp_path), num_classes=2)).train
    rows = np.arange(size)
    for each in (mapped, source(folder)):
        sent = pickle.dumps(each)
        assert len(sent) < 5000  # no content
        check_same([pickle.loads(sent).stored(rows)], [each.stored(rows)])


def test_threads_are_those_that_pay(folder, monkeypatch):
    pictures, memory = source(folder), Source({"labels": np.zeros(3, np.int32)})
    for cores, expected in ((1, 1), (4, 4), (112, 16)):
        monkeypatch.setattr("sphere_jax.data.pipeline.usable_cores", lambda cores=cores: cores)
        assert threads_for(pictures) == expected and threads_for(memory) == 0
        assert threads_for(pictures, 0) == 0 and threads_for(memory, 7) == 7


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_one_sentence(folder, tmp_path, sharding):
    """10 s."""
    pictures = source(folder)
    batches = Batches(pictures, 4, 0, sharding, workers=1)
    taken(batches, 1)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(UserError, match="exit code -9.*config.data.workers"):
        taken(batches, 9)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "train" / "1" / "7.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="7.png is not an image"):
        taken(Batches(source(damaged), 10, 0, sharding, workers=1), 3)


@pytest.mark.slow
def test_a_signal_to_run_and_workers_saves_and_ends_all(folder, tmp_path):
    """As Ctrl-C in a terminal, or a scheduler, sends it. 30 s."""
    data = dict(source="folder", path=folder, image_size=16, channels=3, num_classes=2, workers=2)
    flags = [flag for flag in tiny_run.FLAGS if "config.data." not in flag]
    flags += [f"--config.data.{name}={value}" for name, value in data.items()]
    flags += ["--config.stages=vae", "--config.vae.steps=9999", "--config.vae.log_every=1"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "sphere_jax.main", *flags, f"--workdir={tmp_path / 'run'}"],
        cwd=tiny_run.ROOT, env=tiny_run.environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        next(line for line in process.stdout if line.startswith("vae 3/"))
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert re.fullmatch(r"Stopped. vae: saved at step \d+ of 9,999. The same .*\n", err)
        with pytest.raises(ProcessLookupError):  # nobody is left
            for _ in range(100):
                os.killpg(process.pid, 0)
                time.sleep(0.1)
    finally:
        process.kill()
