"""The page of benchmarks/decoder.py, from run folders written by hand."""

import json
from pathlib import Path

import pytest
import tiny_run
from refusals import refusal_of

from sphere_jax.config.config_files import load_config
from sphere_jax.config.reading import to_dict

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def command():
    return tiny_run.benchmark("decoder")


METRICS = {
    "psnr_raw_original": 30.0, "psnr_projected_original": 24.0, "psnr_projected_finetuned": 27.0,
    "psnr_raw_finetuned": 28.5, "lpips_raw_original": 0.05,
}  # fmt: skip


SPHERE = "token sphere of radius sqrt(d)"


def written(folder, projection=SPHERE, depends=(), metrics=(), normalised=False, **stage):
    """A run folder of flowers_decoder.py, with values of its stage changed or added."""
    config = to_dict(load_config(str(ROOT / "configs" / "flowers_decoder.py")))
    config["decoder"] |= stage
    config["tokenizer"]["pretrained_statistics"] = "s.safetensors" if normalised else ""
    (folder / "stages").mkdir(parents=True)
    found = {"config": config, "versions": {"jax": "9.8.7"}}
    (folder / "config.json").write_text(json.dumps(found))
    depends = {
        "config.decoder.steps": 250, "config.data.image_size": 128, "projection": projection,
        "config.tokenizer.pretrained_statistics fingerprint": str(normalised),
    } | dict(depends)  # fmt: skip
    record = {"finished": True, "depends": depends, "metrics": METRICS | dict(metrics)}
    (folder / "stages" / "decoder.json").write_text(json.dumps(record))
    row = {"stage": "decoder", "step": 250, "training_seconds": 1200.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return str(folder)


def test_a_page_of_recipes_and_a_control(command, tmp_path):
    run = written(tmp_path / "pixels", latent_noise=0.5, an_option_that_is_gone=0)
    control = written(tmp_path / "raw", "none", metrics={"psnr_raw_finetuned": 30.25})
    longer = written(
        tmp_path / "own", depends={"config.decoder.steps": 300}, metrics={"lpips_raw_finetuned": 1},
        steps=300, target="original",
    )  # fmt: skip
    other = written(tmp_path / "first", normalised=True)
    out = tmp_path / "page.md"
    command.main([control, run, longer, other, f"--out={out}"])
    text = out.read_text()
    assert max(len(line) for line in text.splitlines() if line[:2] not in ("  ", "| ")) <= 100
    where = f"normalised per channel, then {SPHERE}"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows == [
        "| decoder | latents | PSNR, dB ↑ | LPIPS (AlexNet) ↓ |",
        "| --- | --- | --- | --- |",
        "| as published | raw | 30.00 | 0.0500 |",
        f"| as published | {SPHERE} | 24.00 | – |",
        f"| `pixels` | {SPHERE} | 27.00 | – |",
        "| `pixels` | raw | 28.50 | – |",
        "| control of `pixels` | raw | 30.25 | – |",
        f"| `own` | {SPHERE} | 27.00 | – |",
        "| `own` | raw | 28.50 | 1.0000 |",
        f"| as published | {where} | 24.00 | – |",
        f"| `first` | {where} | 27.00 | – |",
        "| `first` | raw | 28.50 | – |",
    ]
    words = " ".join(text.split())
    assert "Projection costs 6.00 dB" in words and "gives back 3.00 dB of it, 50 %." in words
    assert "**`pixels`**, 150 steps of 4, 20 minutes; loss: L1 1; target: images, " in words
    assert "noise on latents up to 0.5; optimizer" in words
    assert "50 %. Against the control, on raw latents: psnr -3.25. - **`own`**" in words
    assert words.count("its control was not given") == 1
    assert words.count("It has no control: on raw latents") == 1
    assert "300 steps of 4, 20 minutes; loss: L1 1; target: what the decoder as" in words
    assert "all held-out images, seed 0" in words
    assert "Trained with jax 9.8.7; this page was written on" in words


def test_runs_may_share_a_control_older_than_an_option(command, tmp_path, capsys):
    """Which then was at its default; `depends` does not name radius or kind of the sphere."""
    runs = [written(tmp_path / "token"), written(tmp_path / "global", "global sphere")]
    newer = written(tmp_path / "newer", depends={"config.decoder.target": "images"})
    command.main([*runs, newer, written(tmp_path / "raw", "none")])
    assert capsys.readouterr().out.count("| control of `") == 3


def test_worse_reconstruction_is_reported(command, tmp_path, capsys):
    adversarial = {"adversarial_weight": 0.5, "adversarial_from": 50, "discriminator_rate": 2.0}
    better = {"psnr_projected_original": 30.5, "psnr_projected_finetuned": 30.0}
    command.main([written(tmp_path / "a", "global sphere", metrics=better, **adversarial)])
    words = " ".join(capsys.readouterr().out.split())
    assert "Projection costs no PSNR with the decoder as published (+0.50 dB)" in words
    assert "adds -0.50 dB to theirs" in words and "| global sphere, RMS 1 |" in words
    term = "'patch' discriminator 0.5 from fresh weights, at 2 times the learning rate, counted"
    assert term in words
    lpips = {"lpips_projected_original": 0.06, "lpips_projected_finetuned": 0.07}
    command.main([written(tmp_path / "b", metrics=lpips)])
    assert "It makes this worse: lpips." in " ".join(capsys.readouterr().out.split())


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


def test_a_folder_that_is_no_comparison_is_refused(command, tmp_path):
    run = written(tmp_path / "run")
    raw = written(tmp_path / "raw", "none", depends={"config.decoder.steps": 300})
    large = written(tmp_path / "large", depends={"config.data.image_size": 256})
    few = written(tmp_path / "few", measured=10)
    unfinished = written(tmp_path / "unfinished")
    Path(unfinished, "stages", "decoder.json").write_text('{"finished": false}')

    def refusal(*flags) -> str:
        return refusal_of(command.main, [*flags])

    assert refusal(run, raw).endswith("from run it differs in config.decoder.steps, too.")
    assert refusal(run, large) == "large and run differ in config.data.image_size."
    assert refusal(run, few) == "few and run differ in held-out images measured."
    seed = written(tmp_path / "seed", depends={"config.seed": 1})
    assert refusal(run, seed) == "seed and run differ in config.seed."
    twins = (written(tmp_path / name, "none") for name in ("one", "two"))
    assert refusal(run, *twins) == "one and two are one control; give one."
    assert "None of these runs projects its latents" in refusal(raw)
    assert "no finished stage 'decoder'" in refusal(unfinished)
