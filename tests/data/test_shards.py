"""A data set that several processes write."""

from sphere_jax.data import shards


def test_a_process_writes_nothing_before_the_first_one_has_written_the_plan(tmp_path, monkeypatch):
    """The first would take the folder for another's, and refuse it from then on."""
    done = []
    monkeypatch.setattr(shards, "barrier", lambda where: done.append("barrier"))
    shards.write_missing(
        tmp_path,
        shards.shards_of({"train": 3}, 2),
        lambda shard: done.append("is_whole") is not None,
        lambda shard: done.append("write"),
        "written",
    )
    assert done == ["barrier", "is_whole", "is_whole", "write", "write", "barrier"]
