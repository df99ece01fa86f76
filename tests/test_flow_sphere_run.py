"""A whole run of flow-sphere on a tiny model: trained, resumed, sampled, scored, edited, and its
autoencoder as another flow's tokenizer."""

import json

import numpy as np
import pytest
import tiny_run
from PIL import Image

from sphere_jax import edit, evaluate, main, sample
from sphere_jax.common.errors import UserError
from sphere_jax.runs.drawing import Drawer
from sphere_jax.runs.loading import load_run

pytestmark = pytest.mark.slow
TINY = [
    f"--config={tiny_run.ROOT / 'configs' / 'mnist_flow_sphere.py'}",
    "--config.data.source=digits",
    "--config.data.image_size=16",
    "--config.tokenizer.width=16",
    "--config.tokenizer.depth=1",
    "--config.tokenizer.heads=2",
    "--config.tokenizer.head_dim=8",
    "--config.tokenizer.hidden=16",
    "--config.tokenizer.unroll=False",
    "--config.flow_sphere.steps=30",
    "--config.flow_sphere.warmup=5",
    "--config.flow_sphere.batch_size=16",
    "--config.flow_sphere.width=16",
    "--config.flow_sphere.depth=1",
    "--config.flow_sphere.head_dim=8",
    "--config.flow_sphere.hidden=16",
    "--config.flow_sphere.checkpoint_every=15",
    "--config.flow_sphere.preview_every=30",
    "--config.flow_sphere.optimizer.matrices=muon",
    "--config.flow_sphere.optimizer.warmup=1",
    "--config.sampler.steps=3",
    "--config.evaluation.samples=40",
    "--config.evaluation.at_steps=0,",
    "--config.evaluation.classifier_steps=20",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "flow_sphere"
    main.main([*TINY, f"--workdir={workdir}"])
    return workdir


def test_it_is_scored_with_and_without_refinement(run):
    results = json.loads((run / "results.json").read_text())
    text = json.dumps(results)
    assert "frechet_distance_small_classifier" in text
    assert "NFE 6" in (run / "report.html").read_text() or '"nfe": 6' in text
    assert (run / "report.html").read_text().count("data:image/png") >= 4
    drawer = Drawer(load_run(run), 0)
    path, drawn = drawer.path(np.arange(3), 9), drawer.draw(np.arange(3)).images
    assert list(path) == [0, 1, 2, 3]
    assert np.abs(path[3].astype(int) - drawn).max() <= 1 and (path[0] != drawn).any()


def test_samples_are_the_same_for_a_seed_and_differ_from_the_decode(run, tmp_path):
    def drawn(*flags):
        out = tmp_path / "s.npz"
        sample.main([f"--workdir={run}", "--num=6", "--seed=3", f"--out={out}", *flags])
        return np.load(out)["images"]

    first = drawn()
    np.testing.assert_array_equal(first, drawn())
    assert np.any(first != drawn("--steps=0"))
    assert np.any(first != drawn("--rho=0.2"))


def test_images_are_edited(run, tmp_path):
    files = []
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16), dtype=np.uint8)
        files.append(tmp_path / f"{k}.png")
        Image.fromarray(pixels).save(files[-1])
    actions = {"reconstruct": [], "interpolate": [], "manipulate": ["--labels=1"]}
    for action, more in actions.items():
        flags = [action, f"--workdir={run}", "--images", *map(str, files), *more]
        edit.main([*flags, f"--out={tmp_path / action}.png"])
        assert Image.open(tmp_path / f"{action}.png").size[0] > 32
    flags = [f"--workdir={run}", "--images", *map(str, files), f"--out={tmp_path / 'x.png'}"]
    with pytest.raises(UserError, match="has no 'crossover'; it has reconstruct, interpolate"):
        edit.main(["crossover", *flags])


def test_scores_are_swept_over_steps(run, tmp_path):
    out = tmp_path / "sweep.json"
    evaluate.main([f"--workdir={run}", "--sweep=steps=0,1,2", f"--out={out}"])
    assert [point["nfe"] for point in json.loads(out.read_text())["rows"]] == [1, 2, 4]
