"""The page of benchmarks/decoder.py, from run folders written by hand."""

import json
from pathlib import Path

import pytest
import tiny_run

from sphere_jax.cli import load_config
from sphere_jax.config import to_dict
from sphere_jax.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def command():
    return tiny_run.benchmark("decoder")


METRICS = {
    "psnr_raw_original": 30.0, "psnr_projected_original": 24.0, "psnr_projected_finetuned": 27.0,
    "psnr_raw_finetuned": 28.5, "lpips_raw_original": 0.05,
}  # fmt: skip


def written(folder, projection="token sphere of radius sqrt(d)", depends=(), metrics=(), **stage):
    """A run folder of flowers_decoder.py, with values of its stage changed or added."""
    config = to_dict(load_config(str(ROOT / "configs" / "flowers_decoder.py")))
    config["decoder"] |= stage
    (folder / "stages").mkdir(parents=True)
    found = {"config": config, "versions": {"jax": "9.8.7"}}
    (folder / "config.json").write_text(json.dumps(found))
    record = {
        "finished": True,
        "depends": {"config.decoder.steps": 250, "projection": projection} | dict(depends),
        "metrics": METRICS | dict(metrics),
    }
    (folder / "stages" / "decoder.json").write_text(json.dumps(record))
    row = {"stage": "decoder", "step": 250, "training_seconds": 1200.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_a_page_of_run_and_control(command, tmp_path):
    run = written(tmp_path / "run", latent_noise=0.5, an_option_that_is_gone=0)
    control = written(tmp_path / "control", "none", metrics={"psnr_raw_finetuned": 30.25})
    out = tmp_path / "page.md"
    command.main([f"--run={run}", f"--control={control}", f"--out={out}"])
    text = out.read_text()
    assert max(len(line) for line in text.splitlines() if not line.startswith("    ")) <= 100
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "| latents | decoder | PSNR, dB ↑ | LPIPS (AlexNet) ↓ |"
    assert rows[2] == "| raw | as published | 30.00 | 0.0500 |"
    assert rows[3] == "| projected | as published | 24.00 | – |"
    assert rows[-1] == "| raw | finetuned on raw (FT-vanilla) | 30.25 | – |"
    words = " ".join(text.split())
    assert "Projection costs 6.00 dB" in words and "gives back 3.00 dB of it, 50 %." in words
    assert "The last row against the first" in words
    assert "(token sphere of radius sqrt(d)), not normalised per channel first." in words
    assert "250 steps of 4 images, seed 0 (20 minutes)." in words
    assert 'Weights of the loss: {"l1_weight": 1.0, "l2_weight": 1.0}.' in words
    assert "Discriminator: none. Noise on latents: up to 0.5." in words
    assert "Trained with jax 9.8.7; this page was written on" in words


def test_a_page_without_a_control(command, tmp_path, capsys):
    judged = {"adversarial_weight": 0.5, "adversarial_from": 50, "discriminator_rate": 2.0}
    better = {"psnr_projected_original": 30.5, "psnr_projected_finetuned": 30.0}
    projection = "global sphere of radius sqrt(d)"
    command.main([f"--run={written(tmp_path / 'run', projection, metrics=better, **judged)}"])
    words = " ".join(capsys.readouterr().out.split())
    assert "FT-vanilla" not in words and "was not given" in words
    assert "Projection costs no PSNR with the decoder as published (+0.50 dB)" in words
    assert "adds -0.50 dB to theirs" in words and "(global sphere, RMS 1)" in words
    assert "'patch' from fresh weights, at 2 times the learning rate, counted from step 50" in words
    assert '"adversarial_weight": 0.5' in words and "Noise on latents: none." in words


@pytest.mark.parametrize(
    ("tokenizer", "normalised"),
    [
        ({"name": "tiny_vae", "kind": "taesd"}, False),
        ({"name": "tiny_vae", "kind": "taesd", "pretrained_statistics": "s.safetensors"}, True),
        ({"name": "conv_vae", "widths": [8, 16], "latent_channels": 4}, True),
    ],
)
def test_whether_latents_are_normalised(command, tokenizer, normalised):
    data = {"image_size": 32, "channels": 3}
    config = {"stages": ["decoder"], "data": data, "tokenizer": tokenizer, "decoder": {"old": 1}}
    assert command.is_normalised(config) == normalised


def test_what_is_no_comparison_is_refused(command, tmp_path):
    run = written(tmp_path / "run")
    longer = written(tmp_path / "longer", "none", depends={"config.decoder.steps": 300})
    raw = written(tmp_path / "raw", "none")
    unfinished = written(tmp_path / "unfinished")
    (unfinished / "stages" / "decoder.json").write_text('{"finished": false}')

    def refusal(*flags):
        with pytest.raises(UserError) as error:
            command.main([*flags])
        return str(error.value)

    words = refusal(f"--run={run}", f"--control={longer}")
    assert words == "Run and control differ in config.decoder.steps."
    assert "control must not project" in refusal(f"--run={run}", f"--control={run}")
    assert "run must project" in refusal(f"--run={raw}", f"--control={run}")
    assert "no finished stage 'decoder'" in refusal(f"--run={unfinished}")
