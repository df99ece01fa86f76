"""Statistics of every number of RAE's latents, from images to the file that whitening reads."""

from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.config.options import DataOptions
from sphere_jax.runs import latent_statistics
from sphere_jax.runs.latent_statistics import write_statistics
from sphere_jax.runs.system import build_tokenizer
from sphere_jax.tokenizers.from_files import statistics_file
from sphere_jax.tokenizers.rae import RAE, RAEOptions

SHAPE = (2, 2, 768)  # of 32 pixels


@pytest.fixture
def latents(monkeypatch):
    """Those of ten images and their mirror images, in place of DINOv2's."""
    rng = np.random.default_rng(0)
    scale, shift = rng.uniform(0.5, 2, SHAPE), rng.normal(size=SHAPE)
    found = (shift + scale * rng.normal(size=(10, 2, *SHAPE))).astype(np.float32)

    class Encoder:
        def __init__(self, config, batch):
            assert not config.tokenizer.whiten and config.tokenizer.train_decoder

        def latents(self, images, start, stop):
            yield from (found[start:7], found[7:stop])

    images = np.zeros((10, 32, 32, 3), np.uint8)
    split = SimpleNamespace(train=SimpleNamespace(arrays={"images": images}))
    monkeypatch.setattr(latent_statistics, "Encoder", Encoder)
    monkeypatch.setattr(latent_statistics, "load", lambda data: split)
    monkeypatch.setattr(latent_statistics, "fingerprint_of", lambda path: f"of {path}")
    return found


@pytest.mark.parametrize("cached", [False, True])
def test_every_number_is_whitened_by_its_own(tmp_path, latents, cached, monkeypatch):
    config = latent_statistics.Config(
        stages=(),
        data=DataOptions(image_size=32, channels=3),
        tokenizer=RAEOptions(pretrained_encoder="e.safetensors", whiten=True),
    )
    out = tmp_path / "statistics.safetensors"
    if cached:
        monkeypatch.setattr(latent_statistics.Config, "source",
                            SimpleNamespace(made_of_images=True))  # fmt: skip
        assert "normalises every number" in refusal_of(write_statistics, config, out, 4)
        return
    write_statistics(config, out, 4)
    tokenizer = build_tokenizer(config.data, config.tokenizer)
    assert isinstance(tokenizer, RAE) and tokenizer.latent_shape == SHAPE
    params = statistics_file(str(out), "rae_statistics_32", tokenizer.statistics).load()
    both = latents.reshape(-1, *SHAPE)
    np.testing.assert_allclose(params["mean"], both.mean(0), atol=1e-5)
    np.testing.assert_allclose(params["var"], both.var(0), rtol=1e-4)


def test_given_statistics_are_not_measured_again():
    given = RAEOptions(whiten=True, pretrained_statistics="s.safetensors")
    assert "must be empty to measure them" in refusal_of(RAE.without_statistics, given)
