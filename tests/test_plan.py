"""What `--dry_run` says about the data."""

import pytest
import tiny_run
from PIL import Image
from refusals import refusal_of

from sphere_jax import main

FLAGS = [*tiny_run.FLAGS, "--config.data.channels=3", "--dry_run", "--config.data.num_classes=2"]


@pytest.fixture
def flags(tmp_path):
    """Of a run on two class folders."""
    for name in ("ape", "bee"):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("RGB", (8, 8), (i,) * 3).save(tmp_path / name / f"{i}.png")
    return [*FLAGS, "--config.data.source=folder", f"--config.data.path={tmp_path}"]


def test_examples_and_classes(flags, capsys):
    main.main([*flags, "--config.data.num_classes=0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data        32 training images, 8 held out; classes: 2"
    assert lines[1].split() == ["label", "0", "=", "ape"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--config.data.num_classes=3", "has 2 class folders but config.data.num_classes=3"),
        ("--config.flow.batch_size=64", "batch_size=64 is more than the 32 training examples"),
    ],
)
def test_data_that_do_not_fit_are_refused_at_the_end(flags, capsys, more, words):
    assert words in refusal_of(main.main, [*flags, more])
    assert "sampler" in capsys.readouterr().out  # the plan comes first


def test_data_need_not_be_there(flags, capsys):
    main.main([*flags, "--config.data.path=nowhere"])
    assert "data        nowhere is not here, not looked at" in capsys.readouterr().out


def test_records_are_counted_and_not_read(flags, tmp_path, capsys, monkeypatch):
    from sphere_jax import prepare
    from sphere_jax.data import record_pictures

    written = tmp_path / ".written"
    source = [flag for flag in flags if flag.startswith("--config") and "steps" not in flag]
    prepare.main(["images", *source, f"--out={written}"])
    assert "label 1 = bee" in capsys.readouterr().out
    monkeypatch.setattr(record_pictures, "image_and_label", lambda record: 1 / 0)
    main.main([*FLAGS, "--config.data.source=array_record", f"--config.data.path={written}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data        32 training images, 8 held out; classes: 2"
    assert lines[2].split() == ["label", "1", "=", "bee"]
