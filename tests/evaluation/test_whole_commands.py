"""Whole commands on two folders of pictures, ours and those of other packages: the same number from
the same random weights."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sphere_jax.evaluation import evaluate
from sphere_jax.weights.layouts.inception import layouts
from sphere_jax.weights.stored import write_weights
from sphere_jax.weights.tensors import convert

COUNT = 12  # images on each side


def write_pictures(folder, seed: int):
    """Smooth colours with noise, as JPEG and PNG, which random weights tell apart."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(COUNT):
        coarse = rng.integers(0, 256, (5, 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((40, 48), Image.BICUBIC)
        noise = rng.normal(0, 5 + 10 * seed, (48, 40, 3))
        pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{'jpg' if number % 3 else 'png'}")
    return folder


@pytest.mark.parity
def test_fid_of_two_folders_is_that_of_pytorch_fid(tmp_path, monkeypatch):
    """Relative difference seen: 1e-5."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "models")
    from test_inception import network, random_original
    from torchvision_shim import importorskip

    inception, _ = random_original(monkeypatch)
    score = importorskip("pytorch_fid.fid_score")
    folders = [write_pictures(tmp_path / f"{seed}", seed) for seed in (1, 2)]
    with torch.no_grad():
        expected = score.calculate_fid_given_paths([str(f) for f in folders], 8, "cpu", 2048, 0)
    net, file = network(), tmp_path / "inception.safetensors"
    params = convert(originals.published(inception), layouts(net), net)
    write_weights(file, params, "inception_fid", "random")
    found = evaluate(*folders, ("fid",), weights=file, batch_size=10)
    assert found["metrics"]["fid"] == pytest.approx(expected, rel=1e-3)
    stored = tmp_path / "stored.npz"
    score.save_fid_stats([str(folders[1]), str(stored)], 8, "cpu", 2048, 0)
    against = evaluate(folders[0], stored, ("fid",), weights=file, batch_size=10)
    assert against["metrics"]["fid"] == pytest.approx(expected, rel=1e-3)
    assert against["protocol"]["reference"]["statistics"]["images"] is None
