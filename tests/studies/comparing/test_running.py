"""What arms share, when they are measured, and how numbers of several seeds are shown."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run

from sphere_jax.config.config_files import load_config
from sphere_jax.runs.records import difference
from sphere_jax.runs.run import open_run
from sphere_jax.runs.sharing import _same_sampling, _weights_depend_on
from sphere_jax.studies.comparing import matched
from sphere_jax.studies.comparing.curve_sections import _reached
from sphere_jax.studies.comparing.matched import read_matched, write_matched
from sphere_jax.studies.comparing.outcomes import Reached


def config_of(*overrides):
    path, *flags = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]
    return load_config(path, [*flags, *(f"--config.{override}" for override in overrides)])


PLAIN, TUNED = "stages=vae,flow", "stages=vae,decoder,flow"


@pytest.mark.parametrize(
    ("name", "one", "other", "shared"),
    [
        ("flow", (PLAIN,), (TUNED,), True),
        ("flow", (TUNED,), (PLAIN,), True),
        ("flow", (TUNED,), (TUNED, "decoder.steps=9"), True),
        ("flow", (PLAIN,), (TUNED, "vae.steps=9"), False),
        ("flow", (PLAIN,), (TUNED, "flow.steps=9"), False),
        ("flow", (PLAIN,), (TUNED, "space.path=linear"), False),
        ("decoder", (TUNED,), (TUNED, "flow.steps=9"), True),
        ("decoder", (TUNED,), (TUNED, "decoder.steps=9"), False),
        ("vae", (PLAIN,), (TUNED,), True),
    ],
)
def test_which_stages_arms_share(tmp_path, name, one, other, shared):
    runs = [open_run(config_of(*overrides), tmp_path, None) for overrides in (one, other)]
    before, now = (_weights_depend_on(name, run.records.depends(name)) for run in runs)
    assert (difference(before, now, runs[1].config) is None) == shared


@pytest.mark.parametrize(
    ("one", "shared"),
    [
        ("decode.latent_noise=0.1", True),  # the decoder alone learns: its latents stay
        ("decode.encoder=train", False),
        ("flow.steps=9", False),
        ("align.steps=9", False),
    ],
)
def test_a_flow_is_shared_behind_a_frozen_encoder(tmp_path, one, shared):
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(60) % 12)
    found = []
    for overrides in ((), (one,)):
        flags = [f"--config.{text}" for text in (f"data.path={tmp_path / 'x.npz'}", *overrides)]
        config = load_config("configs/flowers_hae.py", flags)
        records = open_run(config, tmp_path, None).records
        found.append(_weights_depend_on("flow", records.depends("flow")))
    assert (difference(*found, config) is None) == shared


def test_the_same_weights_draw_other_images_by_another_decoder_or_sampler():
    assert _same_sampling(config_of(TUNED), config_of(TUNED, "flow.log_every=3"))
    assert not _same_sampling(config_of(TUNED), config_of(PLAIN))
    assert not _same_sampling(config_of(TUNED), config_of(TUNED, "decoder.steps=9"))
    assert not _same_sampling(config_of(PLAIN), config_of(PLAIN, "sampler.steps=9"))


def test_arms_are_measured_again_until_a_stage_has_started(tmp_path, monkeypatch):
    run = SimpleNamespace(workdir=tmp_path)
    for hashes, starts in (("1", False), ("2", True), ("3", False)):
        monkeypatch.setattr(matched, "matched_items", lambda run, h=hashes: {"data order": h})
        write_matched(run)
        assert read_matched(tmp_path) == {"data order": min(hashes, "2")}
        if starts:
            (tmp_path / "stages").mkdir()
            (tmp_path / "stages" / "vae.json").write_text(json.dumps({}))


def test_a_mean_is_shown_of_all_seeds_or_of_none():
    both = Reached({0: 10.0, 1: 20.0}, {0: 20.0, 1: 40.0})
    assert _reached(both) == ("15 (10, 20)", "2.00 [2.00, 2.00]")
    assert _reached(Reached({0: 10.0, 1: None}, {0: 20.0, 1: 40.0})) == ("(10, never)", "–")
