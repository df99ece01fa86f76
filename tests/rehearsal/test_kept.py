"""Numbers that are kept, and the page of them; docs/scaling.md is the page of docs/rehearsals."""

import json
from pathlib import Path

import pytest
from estimates import GIB, estimate
from refusals import refusal_of

from sphere_jax import rehearse
from sphere_jax.common.files import write_json
from sphere_jax.common.versions import commit
from sphere_jax.rehearsal.kept import folder_of, keep, label_of, made_with, read_records, write_page
from sphere_jax.rehearsal.scaling_page import lines_of, page_of

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
MADE = {"commit": "0123abc", "date": "2026-11-28", "jax": "0.10.2", "libtpu": "0.0.52"}


def test_the_shipped_page_is_that_of_the_shipped_records():
    records = read_records(PAGE)
    assert PAGE.read_text() == page_of(records), (
        "python -m sphere_jax.rehearse --page=docs/scaling.md"
    )
    assert all(record.made["commit"] and record.made["date"] for record in records)
    assert {record.config.split()[0] for record in records} <= {
        file.stem for file in (PAGE.parents[1] / "configs").glob("*.py")
    }


def test_labels_name_what_was_overridden():
    given = ["--config=a/b.py", "--config.model.size=XL", "--config.mesh.fsdp=2", "--only=sample"]
    assert label_of("a/b.py", given) == "b model.size=XL"


def test_records_are_read_as_they_were_kept(tmp_path):
    page, found = tmp_path / "page.md", estimate(collectives={"all-gather": (9, GIB, 1e9, 4e8)})
    keep(page, "tiny", MADE | {"commit": "older"}, found)
    keep(page, "tiny", MADE, found)
    (record,) = read_records(page)
    assert (record.config, record.made) == ("tiny", MADE)
    assert lines_of(record.found) == lines_of(found)
    rehearse.main([f"--page={page}"])
    text = page.read_text()
    assert (
        "| tiny | train flow | v5e:4x4 | 1 x 16 | 128 | 8.0 | 20 | 40 to 50 | 50% to 40% | 1 GB "
        "| 40% | 1 to 1.25 | 0123abc |" in text
    )
    assert "- 0123abc: 2026-11-28, jax 0.10.2, libtpu 0.0.52\n" in text
    assert text.endswith("## What to change\n\nNothing.\n")


def test_advice_is_that_of_today(tmp_path):
    page = tmp_path / "page.md"
    keep(page, "tiny", MADE, estimate(examples=16, topology="v6e:4x4"))
    write_page(page)
    assert "\n- tiny, train flow, v6e:4x4: 1 image a chip is few: a larger" in page.read_text()


def test_records_that_cannot_be_read_are_named(tmp_path):
    page = tmp_path / "page.md"
    assert "holds no rehearsals; give --config" in refusal_of(read_records, page)
    keep(page, "tiny", MADE, estimate())
    (file,) = folder_of(page).glob("*.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"examples": 129}))
    assert "its content has changed" in refusal_of(read_records, page)
    write_json(file, {"config": "tiny", **MADE, "program": "sample"}, sealed=True)
    assert "is of an older version" in refusal_of(read_records, page)


def test_what_an_estimate_is_made_with():
    made = made_with()
    assert made["commit"] == commit() and made["jax"].startswith("0.")
    assert made["date"][:2] == "20"


@pytest.mark.parametrize(
    "flags",
    [[], ["--config=mnist_slerp"], ["--topology=cpu:1"], ["--page=p.md", "--config.seed=1"]],
)
def test_a_rehearsal_needs_config_and_topology(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Give --config and --topology" in refusal_of(rehearse.main, flags)
