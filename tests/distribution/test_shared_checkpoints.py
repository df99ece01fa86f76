"""Two and four processes read batches together, and write, sum, verify and read one checkpoint."""

from pathlib import Path

import pytest
import several

from sphere_jax.common.files import read_json
from sphere_jax.data.pipeline import index_batches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[2, 4])
def count(request):
    """Of processes."""
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, count):
    return tmp_path_factory.mktemp(f"shared_by_{count}")


@pytest.fixture(scope="module")
def found(folder, count):
    """What each of the processes found."""
    script = Path(__file__).with_name("on_several_processes.py")
    return several.results(count, script, folder)


def test_each_process_reads_its_rows_and_they_go_on_in_the_common_order(found, count):
    """No example of a batch is read twice or by none."""
    order = index_batches(20, 8, 0)
    for batch in range(5):
        parts = [each["input"]["read"][batch] for each in found]
        assert [len(part) for part in parts] == [8 // count] * count
        assert sum(parts, []) == order[3 + batch][0].tolist()
        assert [sorted(each["input"]["held"][batch]) for each in found] == [*map(sorted, parts)]
    assert [each["input"]["state"] for each in found] == [{"next_index": 8}] * count


def test_every_sharding_restores_onto_every_other(found):
    for each in found:
        pairs = {key: value for key, value in each.items() if " to " in key}
        assert len(pairs) == 4 and all(pairs.values()), pairs
        assert each["data of sharded"] == {"at": 6}


def test_each_process_reads_a_share_of_what_all_need_whole(found, count):
    assert [each["read here"] for each in found] == [1 / count] * count


def test_each_process_sums_what_it_wrote_and_one_file_holds_all(folder, found, count):
    sums = read_json(folder / "replicated.crc32" / "6.json")
    root = folder / "replicated" / "6"
    files = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    assert sums.keys() == files
    for number in range(count):
        assert any(f"ocdbt.process_{number}/" in name for name in sums)
    assert not list((folder / "replicated.crc32").glob("*.of-*"))


def test_the_first_process_decides_which_step_is_read(found, count):
    for blind, step in ((0, 3), (1, 6)):
        assert [each[f"latest, {blind} is blind"] for each in found] == [step] * count


def test_damage_in_the_share_of_one_process_is_known_to_all(found, count):
    assert [each["whole"] for each in found] == [3] * count
