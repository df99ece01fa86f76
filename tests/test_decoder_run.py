"""Decoder finetuning in whole runs: its report, statistics of latents, a flow on its decoder."""

import json

import jax
import numpy as np
import pytest
import tiny_run

from sphere_jax import main, prepare
from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import load_config
from sphere_jax.config.reading import read_config
from sphere_jax.data.source import load
from sphere_jax.models.alexnet import AlexNet
from sphere_jax.nn.pixels import to_float
from sphere_jax.runs.loading import load_run
from sphere_jax.runs.system import System
from sphere_jax.training.run_log import read_rows
from sphere_jax.weights.opening import open_safetensors
from sphere_jax.weights.stored import fingerprint_of

CELLS = ("raw_original", "projected_original", "raw_finetuned", "projected_finetuned")


@pytest.mark.slow
def test_a_run_with_a_discriminator_ends_with_a_report(tmp_path):
    more = {
        "stages": "vae,decoder",
        "data.image_size": 32,
        "tokenizer.patch": 8,
        "decoder.batch_size": 2,  # the discriminator has its published width
        "decoder.log_every": 1,
        "decoder.adversarial_weight": 0.5,
        "decoder.adversarial_from": 2,
        "decoder.latent_noise": 0.1,
    }
    flags = [f"--config.{name}={value}" for name, value in more.items()]
    main.main([*tiny_run.FLAGS, *flags, f"--workdir={tmp_path}"])
    metrics = json.loads((tmp_path / "results.json").read_text())["stages"]["decoder"]
    assert set(metrics) == {f"{name}_{cell}" for name in ("psnr", "ssim") for cell in CELLS}
    report = (tmp_path / "report.html").read_text()
    assert "Stage: decoder" in report and "projected finetuned" in report
    rows = [r for r in read_rows(tmp_path / "metrics.jsonl") if r["stage"] == "decoder"]
    assert any("adaptive_weight" in row for row in rows)
    last = [row for row in rows if "heldout_loss" in row][-1]
    assert last["heldout_loss"] == last["heldout_pixel"]
    artifacts = load_run(tmp_path).artifacts
    assert {"decoder", "discriminator"} <= set(artifacts)


CONFIG = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.stages = ("decoder", "flow")
    config.data = dict(source="npz", path="{folder}/images.npz", image_size=16, channels=3,
                       num_classes=2)
    config.tokenizer = dict(name="tiny_vae", kind="taesd", pretrained="{folder}/taesd.safetensors")
    config.model = dict(width=16, depth=1, heads=2, patch=2, unroll=False)
    config.decoder = dict(method="decoder", steps=2, batch_size=4, preview_every=2)
    config.flow = dict(method="flow", steps=2, batch_size=4, preview_every=2)
    config.sampler = dict(steps=1)
    config.evaluation = dict(samples=0)
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a tokenizer's weights and a config."""
    folder = tmp_path_factory.mktemp("decoder")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 16, 16, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(20) % 2)
    tiny_run.write_tiny_vae(folder / "taesd.safetensors", rng)
    (folder / "config.py").write_text(CONFIG.format(folder=folder))
    return folder


def flags(folder):
    statistics = folder / "statistics.safetensors"
    config = f"--config={folder / 'config.py'}"
    if not statistics.exists():
        prepare.main(["statistics", config, f"--out={statistics}", "--batch=8"])
    return [config, f"--config.tokenizer.pretrained_statistics={statistics}"]


def test_statistics_normalise_the_latents(folder, tmp_path):
    """Channels of the training images and their mirror images: mean 0, deviation 1."""
    path, override = flags(folder)
    config = load_config(path.removeprefix("--config="), [override])
    tokenizer = System(config).tokenizer
    params = jax.tree.map(np.asarray, tokenizer.load(config.tokenizer))
    assert set(params) == set(tokenizer.parts) == set(tokenizer.shapes())
    x = to_float(load(config.data).train.arrays["images"])
    x = np.concatenate([x, x[:, :, ::-1]])
    z = np.asarray(jax.jit(tokenizer.encode)(params, x), np.float64)
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0.0, atol=1e-3)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1.0, rtol=1e-3)
    with pytest.raises(UserError, match="must end with .safetensors"):
        prepare.main(["statistics", path, f"--out={tmp_path / 's.npz'}"])
    again = ["statistics", path, override, f"--out={tmp_path / 's.safetensors'}"]
    with pytest.raises(UserError, match="must be empty to measure them"):
        prepare.main(again)
    for idle in ("--dtype=float32", "--shard_size=8"):
        with pytest.raises(UserError, match=f"There is no flag {idle.split('=')[0]}"):
            prepare.main(["statistics", path, f"--out={tmp_path / 's.safetensors'}", idle])
    (file,) = folder.glob("statistics.safetensors")
    source = open_safetensors(file).metadata()["source"]
    weights = fingerprint_of(folder / "taesd.safetensors")
    assert source == f"16 images of 16 px, mirrored too, by weights {weights}"


@pytest.fixture(scope="module")
def finetuned(folder):
    """A run of the config, finished."""
    main.main([*flags(folder), f"--workdir={folder / 'run'}"])
    return folder / "run"


@pytest.mark.slow
def test_a_flow_on_the_finetuned_decoder(finetuned):
    """The published decoder is replaced by the finetuned one, whose stage the report shows."""
    run = load_run(finetuned)
    assert run.metrics["decoder"].keys() == {f"{m}_{c}" for m in ("psnr", "ssim") for c in CELLS}
    state = run.artifacts["decoder"]["head"]["kernel"]
    published = run.tokenizer.load(run.config.tokenizer)
    assert np.abs(np.asarray(published["decoder"]["head"]["kernel"]) - state).max() > 0


@pytest.mark.slow
def test_a_finished_decoder_is_measured_again_with_other_options(folder, finetuned, capsys):
    again = [*flags(folder), f"--workdir={finetuned}", "--config.decoder.measured=3"]
    before = load_run(finetuned).metrics["decoder"]
    for times in (1, 0):  # once
        main.main(again)
        out = capsys.readouterr().out
        assert out.count("measured again") == times and "decoder: finished before" in out
    after = load_run(finetuned).metrics["decoder"]
    assert before.keys() == after.keys() and before != after


@pytest.mark.slow
def test_a_page_of_the_decoder_shows_its_cells(finetuned, tmp_path, capsys):
    """A row for the photographs and one for each cell, each with two images and their middles."""
    picture = tmp_path / "images" / "cells.png"
    command = tiny_run.benchmark("decoder")
    command.main([str(finetuned), f"--out={tmp_path / 'page.md'}", f"--picture={picture}"])
    assert "(images/cells.png)\n\n*Photographs: flower.jpg" in (tmp_path / "page.md").read_text()
    strips = command.decoder_picture.cells([command.read_stage(finetuned) | {"control": None}])
    projected = "as published, normalised, projected"
    assert list(strips) == ["photograph", "as published, raw", projected, "run, projected"]
    assert {images.shape for images in strips.values()} == {(4, 16, 16, 3)}
    photograph, detail = strips["photograph"][:2]
    np.testing.assert_array_equal(detail[::2, ::2], photograph[4:12, 4:12])
    assert (strips[projected] != strips["run, projected"]).any()


def test_conflicting_options_are_user_errors():
    def refusal(evaluation=(), size=16, **settings):
        raw = {
            "stages": ("decoder",),
            "data": {"image_size": size, "channels": 3},
            "tokenizer": {"name": "tiny_vae"},
            "decoder": {"method": "decoder", **settings},
            "evaluation": dict(evaluation),
        }
        with pytest.raises(UserError) as error:
            read_config(raw)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "has no discriminator" in refusal(discriminator="dino")
    assert "go together" in refusal(adversarial_weight=0.5, discriminator="dino")
    assert "go together" in refusal(adversarial_weight=0.5, dino="weights")
    assert "has no discriminator" in refusal(discriminator_rate=2.0)
    assert "has no discriminator" in refusal(adversarial_from=2)
    words = refusal(adversarial_weight=0.5, adversarial_from=9, steps=9)
    assert "adversarial_from=9 is past the last of 9 steps" in words
    assert "lpips_weight=0 leaves config.decoder.lpips out" in refusal(lpips="x", lpips_weight=0.0)
    least = AlexNet.smallest_side
    words = refusal({"lpips": "x"}, least - least % 8)
    assert f"config.evaluation.lpips needs config.data.image_size of at least {least}." in words
    assert "holds weights of published" in refusal({"pretrained": "x"})
    assert "measured=1 has no spread" in refusal(measured=1)
    assert "has no reconstruction loss" in refusal(l1_weight=0.0, l2_weight=0.0)
    assert "too small for the losses of config.decoder: at least 32" in refusal(
        adversarial_weight=0.5
    )
