"""A method and a tokenizer of another package, in whole runs, without a change here."""

import json
import shutil
import sys

import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax import compare, edit, evaluate, main, sample
from sphere_jax.common import plugins
from sphere_jax.common.interruption import Interrupted
from sphere_jax.runs.system import build_tokenizer
from sphere_jax.training.signals import StopRequest

METHOD_FILE = '''
"""Predicts the data from noise in one step."""

import dataclasses

import jax.numpy as jnp

from sphere_jax.config.option import option
from sphere_jax.config.options import SamplerOptions
from sphere_jax.methods.on_latents import OnLatents, OnLatentsOptions
from sphere_jax.sampling import FewSteps, noise_of


@dataclasses.dataclass(frozen=True)
class OneStepOptions(OnLatentsOptions):
    method: str = "their_lab.one_step"
    emphasis: float = option(1.0, 0.0, help="of the loss")


@dataclasses.dataclass(frozen=True)
class OneStepSamplerOptions(SamplerOptions):
    steps: int = option(1, 1, 1)
    spread: float = option(1.0, 0.0, swept=True, help="of the noise")


@dataclasses.dataclass(frozen=True)
class OneStepSampler(FewSteps):
    spread: float = 1.0


@dataclasses.dataclass(frozen=True)
class OneStep(OnLatents):
    tokenizer: object
    space: object
    network: object
    num_classes: int
    options: OneStepOptions
    sampler: OneStepSampler

    Options = OneStepOptions
    SamplerOptions = OneStepSamplerOptions

    @classmethod
    def title(cls, config):
        return "one-step regression"

    @classmethod
    def make_sampler(cls, config, name, tokenizer):
        return OneStepSampler(1, config.sampler.guidance, spread=config.sampler.spread)

    def loss(self, params, frozen, batch, keys):
        z = self.space.project(self.latents_of(frozen, batch, keys))
        predicted = self._predict(params, noise_of(keys, z.shape[1:]), batch["labels"])
        error = jnp.mean((predicted - z) ** 2)
        return self.options.emphasis * error, {"error": error}

    def generate(self, params, keys, labels, scale, sampler):
        noise = sampler.spread * noise_of(keys, self.tokenizer.latent_shape)
        return self._predict(params, noise, labels), {}

    def _predict(self, params, noise, labels):
        return self.network.apply(params["network"], noise, jnp.ones(len(noise)), labels)


METHOD = OneStep
'''

TOKENIZER_FILE = '''
"""Folds squares of pixels into channels: nothing to learn, nothing to load."""

import dataclasses

from einops import rearrange

from sphere_jax.config.option import option
from sphere_jax.tokenizers.base import Tokenizer, TokenizerOptions


@dataclasses.dataclass(frozen=True)
class FoldOptions(TokenizerOptions):
    name: str = "their_lab.fold"
    fold: int = option(4, 1, help="pixels, along each side")


@dataclasses.dataclass(frozen=True)
class Fold(Tokenizer):
    fold: int
    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]

    Options = FoldOptions

    @classmethod
    def build(cls, data, options):
        side = data.image_size // options.fold
        shape = (side, side, data.channels * options.fold**2)
        return cls(options.fold, shape, (data.image_size, data.image_size, data.channels))

    def encode(self, params, images):
        return rearrange(images, "b (h p) (w q) c -> b h w (p q c)", p=self.fold, q=self.fold)

    def decode(self, params, latents):
        p = self.fold
        return rearrange(latents, "b h w (p q c) -> b (h p) (w q) c", p=p, q=p)


TOKENIZER = Fold
'''

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.stages = ("mine",)
    config.data = dict(source="digits", image_size=16, num_classes=10)
    config.tokenizer = dict(name="their_lab.fold", fold=4)
    config.model = dict(name="sit", width=16, depth=1, heads=2, unroll=False)
    config.mine = dict(method="their_lab.one_step", steps=6, batch_size=16, log_every=1,
                       checkpoint_every=2, preview_every=6)
    config.sampler = dict(steps=1)
    config.evaluation = dict(samples=40, classifier_steps=20)
    return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config file, and the package that it names on Python's path."""
    folder = tmp_path_factory.mktemp("elsewhere")
    package = folder / "their_lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one_step.py").write_text(METHOD_FILE)
    (package / "fold.py").write_text(TOKENIZER_FILE)
    (package / "broken.py").write_text("import a_package_that_is_not_there")
    (package / "empty.py").write_text("")
    (folder / "config.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder / "config.py"
    for name in [name for name in sys.modules if name.startswith("their_lab")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run(config):
    workdir = config.parent / "run"
    main.main([f"--config={config}", f"--workdir={workdir}"])
    return workdir


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def drawn(workdir, out, *flags):
    sample.main([f"--workdir={workdir}", "--num=6", f"--out={out}", *flags])
    return np.load(out)["images"]


def test_it_trains_and_is_reported(run):
    report = (run / "report.html").read_text()
    assert "one-step regression on digits" in report
    assert "error" in (run / "metrics.jsonl").read_text()
    depends = json.loads((run / "stages" / "mine.json").read_text())["depends"]
    assert depends["config.mine.emphasis"] == 1.0 and depends["config.tokenizer.fold"] == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mine.emphasis=2", "config.mine.emphasis=1.0, not 2.0"),
        ("space.path=nlerp", "config.space.path='slerp', not 'nlerp'"),
        ("model.heads=4", "config.model.heads=2, not 4"),
        ("tokenizer.fold=2", "config.tokenizer.fold=4, not 2"),
    ],
)
def test_a_changed_option_is_refused(config, copied, change, words):
    before = (copied / "config.json").read_text()
    flags = [f"--config={config}", f"--workdir={copied}", f"--config.{change}"]
    assert words in refusal_of(main.main, flags)
    assert (copied / "config.json").read_text() == before


def test_it_resumes_to_the_same_bits(config, run, tmp_path, monkeypatch):
    flags = [f"--config={config}", f"--workdir={tmp_path / 'again'}"]
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "agreed", lambda self, *_, **__: True)
        with pytest.raises(Interrupted, match="saved at step 1 of 6"):
            main.main(flags)
    main.main(flags)
    whole, resumed = (drawn(w, tmp_path / "a.npz") for w in (run, tmp_path / "again"))
    np.testing.assert_array_equal(whole, resumed)


def test_each_part_is_built_once(config, tmp_path, monkeypatch):
    """In a whole run: method, tokenizer, and the parameters, for their shapes and to run."""
    from their_lab.fold import Fold
    from their_lab.one_step import OneStep

    build_tokenizer.cache_clear()
    counts = {}

    def counted(cls, name):
        original = getattr(cls, name)

        def wrapper(*given):
            counts[name, cls.__name__] = counts.get((name, cls.__name__), 0) + 1
            return original(*given)

        monkeypatch.setattr(cls, name, wrapper if name == "init" else staticmethod(wrapper))

    counted(Fold, "build")
    counted(OneStep, "build")
    counted(OneStep, "init")
    main.main([f"--config={config}", f"--workdir={tmp_path / 'run'}", "--config.mine.steps=2"])
    assert counts == {("build", "Fold"): 1, ("build", "OneStep"): 1, ("init", "OneStep"): 1}


def test_its_sampler_options_are_flags(run, tmp_path, capsys):
    near = drawn(run, tmp_path / "a.npz", "--spread=0")
    assert (near[0] == drawn(run, tmp_path / "b.npz", "--spread=0", "--seed=1")[0]).all()
    assert (near[0] != drawn(run, tmp_path / "c.npz")[0]).any()
    message = refusal_of(drawn, run, tmp_path / "d.npz", "--solver=heun")
    assert "--solver is no flag" in message and "config.sampler has no 'solver'" in message


def test_its_sampler_is_swept(run, tmp_path, capsys):
    out = tmp_path / "sweep.json"
    evaluate.main(
        [f"--workdir={run}", "--num=20", "--sweep=spread=0.5,1", "--sweep=guidance=1,2",
         f"--out={out}"]
    )  # fmt: skip
    values = [row["values"] for row in json.loads(out.read_text())["rows"]]
    assert len(values) == 4 and values[0] == {"spread": "0.5", "guidance": "1"}


def test_it_has_nothing_to_edit(run, tmp_path):
    flags = ["reconstruct", f"--workdir={run}", "--images", "a.png", f"--out={tmp_path / 'b.png'}"]
    assert "has no stage whose method edits images" in refusal_of(edit.main, flags)


def test_its_arms_are_compared(config, tmp_path):
    workdir = tmp_path / "compared"
    compare.main(
        [f"--config={config}", f"--workdir={workdir}", "--vary=mine.emphasis=1,2", "--seeds=0"]
    )
    page = (workdir / "comparison.md").read_text()
    assert "mine.emphasis" in page and "Against 1" in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mine.method=their_lab.two_steps", "names no module that Python finds"),
        ("mine.method=their_lab.broken", "a_package_that_is_not_there"),
        ("mine.method=their_lab.empty", "is a module without METHOD"),
        ("mine.method=flwo", "config.mine.method='flwo' is not known; did you mean 'flow'?"),
        ("tokenizer.name=kl_vea", "config.tokenizer.name='kl_vea' is not known; did you mean"),
        ("model.name=sitt", "config.model.name='sitt' is not known; did you mean 'sit'?"),
        ("data.source=digit", "config.data.source='digit' is not known; did you mean 'digits'?"),
        ("evaluation.features=inception", "did you mean 'inception_fid'?"),
        ("mine.method=base", "config.mine.method='base' is not known"),
        ("mine.method=../flow", "config.mine.method='../flow' is not known"),
    ],
)
def test_unknown_names_are_user_errors(config, tmp_path, change, words):
    flags = [f"--config={config}", f"--workdir={tmp_path}", f"--config.{change}"]
    assert words in refusal_of(main.main, flags)


def test_every_kind_has_its_files():
    assert {"decoder", "flow", "sphere_encoder", "sphere_latent", "vae"} <= set(
        plugins.known("methods", "METHOD")
    )
    assert {"conv_vae", "kl_vae", "precomputed", "rae", "sphere_encoder", "tiny_vae"} <= set(
        plugins.known("tokenizers", "TOKENIZER")
    )
    assert {"denoiser", "lightning_ddt", "lightning_dit", "sit"} == set(
        plugins.known("models", "NETWORK")
    )
