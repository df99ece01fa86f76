"""Drawing that goes on after a kill, labels, and how pixels are rounded, on random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from refusals import refusal_of

from sphere_jax.config.config_files import load_config
from sphere_jax.data.class_names import Classes
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.nn.pixels import to_uint8
from sphere_jax.runs import partial
from sphere_jax.runs.drawing import Drawer, balanced_labels
from sphere_jax.runs.labels import chosen_labels, random_labels
from sphere_jax.runs.run import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path, *flags = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]
    more = ["--config.model.depth=1", "--config.sampler.steps=2", "--config.sampler.batch_size=6"]
    config = load_config(path, [*flags, *more])
    run = open_run(config, tmp_path_factory.mktemp("drawing"), make_mesh())
    for seed, stage in enumerate(("vae", "flow")):
        fresh = jax.eval_shape(run.methods[stage].init, jax.random.key(0), {})
        rng = np.random.default_rng(seed)
        draw = lambda x, rng=rng: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype)  # noqa: E731
        run.artifacts |= jax.tree.map(draw, fresh)
    d = run.generator.tokenizer.latent_shape[-1]
    run.artifacts["statistics"] = {"mean": jnp.zeros(d), "std": jnp.ones(d)}
    return run


def same_drawing(run):
    """What `drawn_until` draws."""
    drawer = Drawer(run, 0)
    return "x", balanced_labels(20, 10), drawer.method.sampler, drawer.params


class Killed(BaseException):
    """The process is gone: nothing after this runs."""


def drawn_until(run, monkeypatch, batches, drawer=None, **given):
    """How many batches are drawn by a drawing that is killed after so many, None: by none."""
    drawer, drawn = drawer or Drawer(run, 0), []
    add = partial.Partial.add

    def counted(self, rows):
        add(self, rows)
        drawn.append(len(rows["drawn"]))
        if len(drawn) == batches:
            raise Killed

    monkeypatch.setattr(partial.Partial, "add", counted)
    try:
        found = drawer.draw(balanced_labels(20, 10), resumes="x", quiet=True, **given)
    except Killed:
        found = None
    finally:
        monkeypatch.setattr(partial.Partial, "add", add)
    return found, drawn


def test_drawing_goes_on_after_a_kill_with_the_same_bits(run, monkeypatch):
    whole = Drawer(run, 0).draw(balanced_labels(20, 10))
    monkeypatch.setattr(partial, "EVERY", 0.0)
    assert drawn_until(run, monkeypatch, 2) == (None, [6, 6])
    drawer = Drawer(run, 0)
    found, drawn = drawn_until(run, monkeypatch, None, drawer)
    assert drawn == [6, 2]
    np.testing.assert_array_equal(found.images, whole.images)
    np.testing.assert_array_equal(found.trace["radius"], whole.trace["radius"])
    drawer.used("x")
    assert not (run.workdir / "partial").exists()


def test_another_drawing_starts_again(run, monkeypatch):
    monkeypatch.setattr(partial, "EVERY", 0.0)
    drawn_until(run, monkeypatch, 2)
    files = sorted((run.workdir / "partial").glob("x-*/*.npz"))
    assert [file.name for file in files] == ["00000000.npz", "00000006.npz"]
    files[1].write_bytes(files[1].read_bytes()[:-30])  # damaged
    assert drawn_until(run, monkeypatch, 1)[1] == [6]
    files[0].unlink()  # by another command that has finished: what is left has no beginning
    assert drawn_until(run, monkeypatch, 1)[1] == [6]
    assert [len(rows["drawn"]) for rows in Drawer(run, 0)._partial(*same_drawing(run)).rows()] == [
        6,
        6,
    ]
    other = dict(run.artifacts, network=jax.tree.map(lambda x: x * 1.01, run.artifacts["network"]))
    drawer = Drawer(run, 0)
    assert drawn_until(run, monkeypatch, 1, drawer, trained=other)[1] == [6]
    assert drawn_until(run, monkeypatch, None, Drawer(run, 1))[1] == [6, 6, 6, 2]
    partial.delete_partial(run.workdir)


def test_a_short_drawing_and_a_full_disk_write_nothing(run, monkeypatch):
    drawn_until(run, monkeypatch, 2)
    assert not (run.workdir / "partial").exists()
    monkeypatch.setattr(partial, "EVERY", 0.0)
    monkeypatch.setattr(partial, "free_bytes", lambda folder: 100)
    drawn_until(run, monkeypatch, 2)
    assert not (run.workdir / "partial").exists()


def test_a_checksum_tells_weights_apart():
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(2, jnp.bfloat16)}
    same = {"a": jnp.arange(6.0).reshape(2, 3) + 0, "b": jnp.ones(2, jnp.bfloat16)}
    others = [
        {**tree, "a": tree["a"].at[1, 2].add(1e-6)},
        {**tree, "a": tree["a"][::-1]},
        {**tree, "a": tree["a"].reshape(3, 2).T},
        {"a": tree["b"], "b": tree["a"]},
    ]
    found = [int(partial.checksum(other)) for other in (tree, same, *others)]
    assert found[0] == found[1] and len(set(found[1:])) == 5


def test_labels_are_balanced_random_or_named():
    classes = Classes(3, names=("ape", "bee", "random"))
    assert chosen_labels("", classes, 5, 0)[0].tolist() == [0, 1, 2, 0, 1]
    assert chosen_labels("balanced", classes, 5, 0)[1] == "balanced"
    found, how = chosen_labels("random", classes, 3000, 7)
    assert how == "random" and found.dtype == np.int32
    assert (np.abs(np.bincount(found) - 1000) < 120).all()
    np.testing.assert_array_equal(random_labels(50, 3, 7), found[:50])
    assert (random_labels(50, 3, 8) != found[:50]).any()
    found, how = chosen_labels("bee,name:random", classes, 3, 0)
    assert found.tolist() == [1, 2, 1] and how == "1, 2 in turn"
    assert "no class is called 'cat'" in refusal_of(chosen_labels, "cat", classes, 3, 0)


def test_pixels_are_rounded_as_published_samplers_do():
    x = np.linspace(-1.02, 1.02, 1001, dtype=np.float32)
    expected = {
        "nearest": np.round(np.clip(x * 127.5 + 127.5, 0, 255)),
        "truncated": np.trunc(np.clip(x * 127.5 + 128, 0, 255)),
        "floor": np.trunc(np.clip((x + 1) * 127.5, 0, 255)),
    }
    for rounding, values in expected.items():
        found = np.asarray(to_uint8(x, rounding)).astype(int)
        assert np.abs(found - values).max() <= (rounding == "floor")  # one rounding of a float
        assert np.mean(found != values) < 0.01


def test_a_drawer_rounds_as_it_is_told(run):
    labels = balanced_labels(6, 10)
    nearest, floor = (Drawer(run, 0, r).draw(labels).images for r in ("nearest", "floor"))
    difference = nearest.astype(int) - floor
    assert set(np.unique(difference)) == {0, 1} and 0.3 < difference.mean() < 0.7


def test_batches_on_the_devices_are_the_same_samples(run):
    """Drawing and decoding as one program, the last batch filled up."""
    drawer, labels = Drawer(run, 0), balanced_labels(20, 10)
    whole = drawer.draw(labels)
    parts = [
        (np.asarray(images), count)
        for images, count, _ in drawer.batches(labels, lambda _, x: x, None)
    ]
    assert [(len(images), count) for images, count in parts] == [(6, 6)] * 3 + [(6, 2)]
    found = np.concatenate([images[:count] for images, count in parts])
    assert np.abs(found.astype(int) - whole.images).max() <= 1
