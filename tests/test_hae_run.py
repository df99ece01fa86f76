"""HAE from nothing in whole runs: its report, the same bits after a kill, its exported file."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from sphere_jax import convert, main
from sphere_jax.common.interruption import Interrupted
from sphere_jax.config.config_files import load_config
from sphere_jax.nn.pixels import to_float
from sphere_jax.runs.loading import load_run
from sphere_jax.runs.system import build_tokenizer
from sphere_jax.training.run_log import read_rows
from sphere_jax.training.signals import StopRequest

SMALL = {
    "data.image_size": 32,
    "data.num_classes": 3,
    "tokenizer.vit_width": 32,
    "tokenizer.vit_depth": 1,
    "tokenizer.vit_heads": 2,
    "tokenizer.patch": 4,
    "tokenizer.stem_widths": "8",
    "tokenizer.decoder_widths": "8,16,32",
    "tokenizer.decoder_depths": "1,1,1",
    "tokenizer.attention_levels": 1,
    "model.width": 32,
    "model.depth": 1,
    "model.heads": 2,
    "sampler.steps": 2,
    "evaluation.samples": 6,
    "evaluation.classifier_steps": 2,
    "decode.discriminator_width": 4,
    "decode.discriminator_from": 1,
    "decode.adversarial_from": 2,
    "decode.latent_noise_ramp": 2,
    **{f"{stage}.steps": 4 for stage in ("teacher", "align", "decode", "flow")},
    **{f"{stage}.batch_size": 4 for stage in ("teacher", "align", "decode", "flow")},
    **{f"{stage}.log_every": 1 for stage in ("teacher", "align", "decode", "flow")},
    **{f"{stage}.optimizer.warmup": 1 for stage in ("teacher", "align", "flow")},
}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    np.savez(file, images=images, labels=np.arange(30) % 3)
    config = tiny_run.ROOT / "configs" / "flowers_hae.py"
    values = {"data.path": file, **SMALL}
    return [f"--config={config}", *(f"--config.{k}={v}" for k, v in values.items())]


@pytest.fixture(scope="module")
def run(flags, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    main.main([*flags, f"--workdir={folder}"])
    return folder


@pytest.mark.slow
def test_its_report(run):
    stages = json.loads((run / "results.json").read_text())["stages"]
    wanted = {"reconstruction_psnr", "probe_student_top1", "probe_teacher_top1", "norm_student",
              "cosine_of_both", "psnr_direction_noise_0.1"}  # fmt: skip
    assert wanted <= stages["align"].keys() and wanted <= stages["decode"].keys()
    assert 0 <= stages["teacher"]["heldout_accuracy"] <= 100
    page = (run / "report.html").read_text()
    for words in ("Stage: decode", "Token norms", "principal components", "at one norm",
                  "Noise on directions", "Loss of the discriminator"):  # fmt: skip
        assert words in page, words
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["stage"] == "decode"]
    assert any("logit_decoded" in row for row in rows)


def leaves(folder):
    artifacts = load_run(folder).artifacts
    names = ("vit", "stem", "decoder", "discriminator", "network")
    return {name: jax.tree.map(np.asarray, artifacts[name]) for name in names}


@pytest.mark.slow
def test_it_resumes_inside_the_second_stage_to_the_same_bits(flags, run, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    with monkeypatch.context() as patch:
        inside = lambda self, *_, **__: (folder / "checkpoints" / "decode").exists()  # noqa: E731
        patch.setattr(StopRequest, "agreed", inside)
        with pytest.raises(Interrupted, match="saved at step 1 of 4"):
            main.main([*flags, f"--workdir={folder}"])
    main.main([*flags, f"--workdir={folder}"])
    jax.tree.map(np.testing.assert_array_equal, leaves(folder), leaves(run))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["tokenizer", "released"])
def test_its_file_is_a_tokenizer(flags, run, tmp_path, part):
    """Exported by our names or in the released layout, read back, and encoding as the run does."""
    out = tmp_path / "hae.safetensors"
    convert.main(["--from", str(run), "--export", part, f"--out={out}"])
    values = [f"--config.tokenizer.pretrained={out}", "--config.stages=flow"]
    values.append("--config.data.flip=False")
    config = load_config(flags[0].split("=")[1], [*flags[1:], *values])
    tokenizer = build_tokenizer(config.data, config.tokenizer)
    assert not config.tokenizer_class.trained_by_run(config.tokenizer)
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    found = []
    for params in (tokenizer.load(config.tokenizer), load_run(run).artifacts):
        params = jax.tree.map(np.asarray, {part: params[part] for part in tokenizer.parts})
        params["vit"].pop("patch_embedding", None)
        latents = tokenizer.encode(params, to_float(images))
        found.append((latents, tokenizer.decode(params, latents)))
    jax.tree.map(np.testing.assert_array_equal, *found)
