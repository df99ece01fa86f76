"""The record of a stage from before an option: what it lacks counts as the option's default."""

import json
from types import SimpleNamespace

import pytest
import tiny_run
from refusals import refusal_of

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json
from sphere_jax.config.reading import read_config
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.runs import records
from sphere_jax.runs.records import completed, difference
from sphere_jax.runs.run import Run
from sphere_jax.runs.stages import start

RAW = {
    "stages": ("flow",),
    "data": {"source": "latents", "num_classes": 3},
    "tokenizer": {"name": "precomputed", "latent_shape": (2, 2, 4)},
    "model": {"width": 16, "depth": 1, "heads": 2},
    "flow": {"steps": 7, "time_shift": 2.0},
}
NEWER = ("config.flow.encode", "config.flow.optimizer.hold", "config.model.parameterization")


def config_of(**flow):
    return read_config(RAW | {"flow": RAW["flow"] | flow})


@pytest.fixture(autouse=True)
def data(monkeypatch):
    """A thousand training examples, none of them read."""
    split = SimpleNamespace(train=Examples(range(1000)))
    monkeypatch.setattr(Run, "split", split)


class Examples(list):
    fingerprint = ""
    dates = {}


@pytest.fixture
def depends(tmp_path):
    return lambda **flow: Run(config_of(**flow), tmp_path, None).records.depends("flow")


def test_an_older_name_of_an_option(depends):
    now = depends()
    old = now | {"config.model.clock": now["config.model.parameterization"]}
    del old["config.model.parameterization"]
    assert difference(old, now, config_of()) is None
    old["config.model.clock"] = "data_at_one"
    message = difference(old, now, config_of())
    assert message == "config.model.parameterization='data_at_one', not 'noise_at_one'"
    stored = RAW | {"model": RAW["model"] | {"clock": "data_at_one"}}
    assert read_config(stored, stored=True).model.parameterization == "data_at_one"
    with pytest.raises(UserError, match="config.model.clock is called config.model.parameter"):
        read_config(stored)


def test_an_older_value_of_an_option(depends):
    now = depends()
    assert now["config.model.remat"] == "none"
    assert difference(now | {"config.model.remat": False}, now, config_of()) is None
    message = difference(now | {"config.model.remat": True}, now, config_of())
    assert message == "config.model.remat='blocks', not 'none'"
    stored = RAW | {"model": RAW["model"] | {"remat": True}}
    assert read_config(stored, stored=True).model.remat == "blocks"
    with pytest.raises(UserError, match="config.model.remat=True must be one of 'none', 'prod"):
        read_config(stored)


def test_a_record_without_newer_options(depends):
    now = depends()
    old = {key: value for key, value in now.items() if key not in NEWER}
    assert len(old) == len(now) - len(NEWER)
    assert difference(now, now, config_of()) is None
    assert difference(old, now, config_of()) is None
    assert difference(old, depends(steps=8), config_of(steps=8)) == "config.flow.steps=7, not 8"
    other = depends(encode="once", optimizer={"schedule": "linear", "hold": 2})
    assert "optimizer.hold=0, not 2" in difference(
        {**old, "config.flow.optimizer.schedule": "linear"}, other, config_of()
    )
    # What was given explicitly is not replaced by a default.
    short = {key: value for key, value in now.items() if key != "config.flow.time_shift"}
    assert difference(short, now, config_of()) == "config.flow.time_shift=1.0, not 2.0"
    assert completed(short, config_of())["config.flow.time_shift"] == 1.0


def test_unknown_options_of_a_record(depends):
    now = depends()
    message = difference(now | {"config.flow.gamma": 0.5}, now, config_of())
    assert message == "config.flow.gamma=0.5, which this version does not know"
    assert difference(now | {"config.flow.log_every": 3}, now, config_of()) is None  # free today
    extra = now | {"config.flow.pretrained fingerprint": "abc"}
    assert (
        difference(extra, now, config_of()) == "config.flow.pretrained fingerprint='abc', not None"
    )
    assert (
        difference(now, extra, config_of()) == "config.flow.pretrained fingerprint=None, not 'abc'"
    )


def test_a_changed_name_is_reported_before_its_options(depends):
    now = depends()
    before = {key: value for key, value in now.items() if not key.startswith("config.model")}
    before |= {"config.model.name": "lightning_dit", "config.model.aardvark": 1}
    message = difference(before, now, config_of())
    assert message == "config.model.name='lightning_dit', not 'sit'"


def test_a_last_stage_goes_on_where_its_first_steps_are_the_same(tmp_path):
    """In more steps at a constant rate; else the refusal says why it does not."""

    def records(raw):
        return Run(read_config(raw), tmp_path, None).records

    def claimed(**flow):
        return records(RAW | {"flow": RAW["flow"] | flow}).claim("flow")

    claimed(steps=7)
    finished = tmp_path / "stages" / "flow.json"
    tiny_run.edit_json(finished, finished=True, metrics={})
    (tmp_path / "results.json").write_text("{}")
    assert claimed(steps=7)["finished"] and (tmp_path / "results.json").exists()
    record = claimed(steps=9)
    assert record["depends"]["config.flow.steps"] == 9 and not record["finished"]
    assert read_json(finished) == record and not (tmp_path / "results.json").exists()
    assert "config.flow.steps=9, not 8; give another" in refusal_of(claimed, steps=8)
    both = refusal_of(claimed, steps=10, time_shift=3.0)
    assert "config.flow.steps=9, not 10; give another --workdir (--from_run=" in both
    finished.unlink()
    claimed(optimizer={"schedule": "cosine"})
    message = refusal_of(claimed, steps=9, optimizer={"schedule": "cosine"})
    assert "and cannot go on, because its learning rates ('cosine') depend on its length" in message
    finished.unlink()
    claimed()
    two = RAW | {"stages": ("flow", "more"), "flow": RAW["flow"] | {"steps": 9}}
    later = records(two | {"more": RAW["flow"] | {"method": "flow"}})
    assert "because later stages were trained on it" in refusal_of(later.claim, "flow")


def test_a_changed_date_of_sampled_files_is_said(tmp_path, monkeypatch, capsys):
    records = Run(config_of(), tmp_path, None).records

    def said(date):
        monkeypatch.setattr(Examples, "dates", {"latents.npy": date})
        records.claim("flow")
        return capsys.readouterr().out

    records.claim("flow")
    assert said("Monday") == ""  # a record without dates
    records.file("flow").unlink()
    assert said("Monday") == said("Monday") == ""
    words = "flow: latents.npy has changed since the stage was started (Tuesday, not Monday);"
    assert said("Tuesday").startswith(words)


def test_a_run_restarts_in_an_older_folder(tmp_path):
    run = Run(config_of(), tmp_path, make_mesh())
    record = tmp_path / "stages" / "flow.json"
    record.parent.mkdir()
    old = {key: value for key, value in run.records.depends("flow").items() if key not in NEWER}
    record.write_text(json.dumps({"depends": old, "finished": True, "metrics": {}}))
    start(run)
    stored = json.loads((tmp_path / "config.json").read_text())["config"]
    for key in NEWER:  # config.json is as old
        *groups, last = key.split(".")[1:]
        group = stored
        for name in groups:
            group = group[name]
        del group[last]
    del stored["evaluation"]
    assert read_config(stored) == run.config
    assert read_config(stored) == run.config
    content = {"depends": old | {"config.flow.gamma": 1}, "finished": True, "metrics": {}}
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match="config.flow.gamma=1, which this version does not know"):
        start(run)
    record.rename(record.with_name("vae.json"))  # of a config that had no stage in common
    with pytest.raises(UserError, match="holds stage 'vae', which this config does not have"):
        start(run)


def test_a_stage_depends_on_what_it_reads_of_the_tokenizer(tmp_path):
    """HAE's first stage trains its ViT alone: another decoder or stem leaves it as it is."""

    def run_of(**tokenizer):
        sizes = {
            "stem_widths": (8, 8),
            "decoder_widths": (32, 64, 128, 128),
            "decoder_depths": (1,) * 4,
        }
        stages = {"teacher": {"method": "vit_classifier"}, "align": {"method": "hae"}}
        raw = {
            "stages": tuple(stages),
            "data": {"source": "npz", "image_size": 16, "channels": 3, "num_classes": 3},
            "tokenizer": {"name": "hae", "vit": ""} | sizes | tokenizer,
        }
        return Run(read_config(raw | stages), tmp_path, None)

    def differs(name, **tokenizer):
        before, now = run_of().records, run_of(**tokenizer)
        return difference(before.depends(name), now.records.depends(name), now.config)

    other = {"decoder_depths": (1, 1, 1, 2), "stem": "patch"}
    assert differs("teacher", **other) is None
    assert differs("align", **other) == "config.tokenizer.decoder_depths=[1, 1, 1, 1], not " + (
        "[1, 1, 1, 2]"
    )
    assert differs("teacher", vit_width=64) == "config.tokenizer.vit_width=128, not 64"

    records = run_of().records  # older records of the stage have all options of the tokenizer
    every = {k: v for k, v in records.depends("align").items() if k.startswith("config.tokenizer")}
    now = records.depends("teacher")
    assert every.keys() - now.keys()
    assert difference(every | now, now, records.config) is None


def test_a_stage_starts_by_the_record_that_the_first_process_sees(tmp_path, monkeypatch):
    """A host whose file system remembers that there is none would train again."""
    run = Run(config_of(), tmp_path, None)
    finished = {"depends": run.records.depends("flow"), "finished": True}

    def told(own):
        assert own is None
        return finished

    monkeypatch.setattr(records, "told_by_main_process", told)
    assert run.records.claim("flow") == finished
    assert not (tmp_path / "stages").exists()
