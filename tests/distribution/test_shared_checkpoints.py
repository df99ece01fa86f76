"""Two processes read batches together, and write, sum, verify and read one checkpoint."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from sphere_jax.common.files import read_json
from sphere_jax.data.pipeline import index_batches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def found(folder):
    """What each of the two processes found."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    given = {
        "SPHERE_JAX_COORDINATOR": address,
        "SPHERE_JAX_PROCESSES": "2",
        "PYTHONPATH": str(tiny_run.ROOT),
    }
    started = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("on_two_processes.py"), folder],
            env=tiny_run.environment(2, SPHERE_JAX_PROCESS=str(number), **given),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [tiny_run.finish(process, timeout=600)[0] for process in started]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_each_process_reads_its_rows_and_they_go_on_in_the_common_order(found):
    """No example of a batch is read twice or by none."""
    order = index_batches(20, 8, 0)
    for batch in range(5):
        parts = [each["input"]["read"][batch] for each in found]
        assert [len(part) for part in parts] == [4, 4]
        assert parts[0] + parts[1] == order[3 + batch][0].tolist()
        assert [sorted(each["input"]["held"][batch]) for each in found] == [*map(sorted, parts)]
    assert [each["input"]["state"] for each in found] == [{"next_index": 8}] * 2


def test_every_sharding_restores_onto_every_other(found):
    for each in found:
        pairs = {key: value for key, value in each.items() if " to " in key}
        assert len(pairs) == 4 and all(pairs.values()), pairs
        assert each["data of sharded"] == {"at": 6}


def test_each_process_reads_half_of_what_both_need_whole(found):
    assert [each["read here"] for each in found] == [0.5, 0.5]


def test_each_process_sums_what_it_wrote_and_one_file_holds_all(folder, found):
    sums = read_json(folder / "replicated.crc32" / "6.json")
    root = folder / "replicated" / "6"
    files = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    assert sums.keys() == files
    assert any("ocdbt.process_1/" in name for name in sums)
    assert not list((folder / "replicated.crc32").glob("*.of-*"))


def test_the_first_process_decides_which_step_is_read(found):
    for blind, step in ((0, 3), (1, 6)):
        assert [each[f"latest, {blind} is blind"] for each in found] == [step, step]


def test_damage_in_the_share_of_one_process_is_known_to_both(found):
    assert [each["whole"] for each in found] == [3, 3]
