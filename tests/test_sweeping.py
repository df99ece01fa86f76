"""Sweeps, decode radii and auto-guidance, on an untrained run with random weights."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from refusals import refusal_of

from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import load_config
from sphere_jax.config.reading import read_config, to_dict
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.methods.flow import Flow
from sphere_jax.runs import weaker
from sphere_jax.runs.drawing import Drawer, balanced_labels, draw
from sphere_jax.runs.run import Run, open_run
from sphere_jax.runs.weaker import with_weaker
from sphere_jax.studies import sweeping
from sphere_jax.studies.sweeping import sweep_configs, swept_guidance

LABELS = balanced_labels(12, 10)


def config_of(*overrides):
    path, *flags = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]
    return load_config(
        path, [*flags, "--config.model.depth=1", "--config.sampler.steps=2", *overrides]
    )


def random_weights(method, seed):
    """Of a network that reads all of its inputs, which a fresh one does not."""
    fresh = jax.eval_shape(method.init, jax.random.key(0), {})
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), fresh)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = open_run(config_of(), tmp_path_factory.mktemp("sweep"), make_mesh())
    for seed, stage in enumerate(("vae", "flow")):
        run.artifacts |= random_weights(run.methods[stage], seed)
    d = run.generator.tokenizer.latent_shape[-1]
    run.artifacts["statistics"] = {"mean": jnp.zeros(d), "std": jnp.ones(d)}
    return run


def with_config(run, *overrides, **artifacts):
    return dataclasses.replace(
        run, config=config_of(*overrides), artifacts=run.artifacts | artifacts
    )


def apart(a, b):
    return np.max(np.abs(a.astype(int) - b.astype(int)))


# The decode radius


def test_latents_decode_at_any_radius_as_the_config_would(run):
    drawer = Drawer(run, 3)
    drawn = drawer.draw(LABELS, decode=False)
    assert drawn.images is None
    norms = np.linalg.norm(drawn.latents, axis=-1)
    np.testing.assert_allclose(norms, drawer.method.space.radius, rtol=1e-5)
    own, far = (drawer.decode(drawn.latents, r) for r in (drawer.method.space.radius, 0.3))
    assert apart(own, draw(run, LABELS, 3).images) <= 1
    other = with_config(run, "--config.sampler.decode_radius=0.3")
    assert apart(far, draw(other, LABELS, 3).images) <= 1 and apart(own, far) > 5
    made = sweeping.generation_of(other, drawn.sampler, 3)
    assert made["decode_radius"] == 0.0  # the protocol distinguishes the two
    assert other.generator.sampler.decode_radius == 0.3


def test_a_run_without_decoder_leaves_latents_at_the_decode_radius(tmp_path):
    raw = to_dict(config_of()) | {"stages": ["flow"]}
    raw["data"] = {"source": "latents", "num_classes": 10}
    raw["tokenizer"] = {"name": "precomputed", "latent_shape": [2, 2, 4]}
    drawn = []
    for radius in (0.0, 0.7):
        raw["sampler"]["decode_radius"] = radius
        run = Run(read_config(raw), tmp_path, make_mesh())
        run.artifacts = random_weights(run.generator, 1)
        drawn.append(draw(run, LABELS, 3).latents)
    own, scaled = drawn
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=-1), 0.7, rtol=1e-5)
    np.testing.assert_allclose(scaled, 0.7 / 2.0 * own, rtol=1e-4, atol=1e-6)  # from sqrt(4)


def test_latents_too_many_for_memory_are_refused_before_they_are_drawn(run, reference, monkeypatch):
    monkeypatch.setattr(sweeping, "latent_bytes", lambda tokenizer: 10**15)
    points = sweep_configs(run.config, ["decode_radius=0,0.3"])
    with pytest.raises(UserError, match="The latents that all radii decode would take"):
        sweeping.sweep(run, points, 12, 3)


@pytest.mark.parametrize("change", [{"path": "linear"}, {"sphere": "global"}])
def test_a_decode_radius_needs_token_spheres(change):
    raw = to_dict(config_of())
    raw["sampler"] |= {"decode_radius": 2.0}
    read_config(raw)
    raw["space"] |= change
    with pytest.raises(UserError, match="decode_radius needs tokens of one radius"):
        read_config(raw)


# Sweeps


@pytest.fixture(scope="module")
def trained_reference(run):
    return sweeping.reference_of(run)


@pytest.fixture
def reference(trained_reference, monkeypatch):
    """The feature network and the pixel classifier, trained once for all tests here."""
    monkeypatch.setattr(sweeping, "reference_of", lambda run: trained_reference)


def test_a_sweep_draws_once_for_all_radii_and_compiles_once_for_all_scales(
    run, reference, monkeypatch
):
    drawn, traced, drawers = [], [], set()
    real_draw, real_generate, real_decode = Drawer.draw, Flow.generate, Drawer.decode

    def counted_draw(self, labels, sampler=None, decode=True):
        drawn.append(sampler.scale)
        return real_draw(self, labels, sampler, decode)

    def counted_generate(self, *given):
        traced.append(None)
        return real_generate(self, *given)

    def counted_decode(self, latents, radius):
        drawers.add(self)
        return real_decode(self, latents, radius)

    monkeypatch.setattr(Drawer, "decode", counted_decode)
    monkeypatch.setattr(Drawer, "draw", counted_draw)
    monkeypatch.setattr(Flow, "generate", counted_generate)
    points = sweep_configs(run.config, ["decode_radius=0,0.3", "guidance=1.5,2,1"])
    swept = sweeping.sweep(run, points, 12, 3)
    assert drawn == [1.5, 2.0, 1.0] and len(traced) == 2
    (drawer,) = drawers
    assert drawer._finish._cache_size() == 1  # for both radii
    assert [call._cache_size() for call in drawer._generators.values()] == [1, 1]  # guided and not
    values = {tuple(row["values"].values()): row for row in swept["rows"]}
    assert len(values) == 6 and [row["nfe"] for row in swept["rows"]] == [4, 4, 4, 4, 2, 2]
    row = values["0.3", "2"]
    stamp = row["protocol"]["generation"]
    assert (stamp["decode_radius"], stamp["guidance"]["scale"], stamp["seed"]) == (0.3, 2.0, 3)

    sampler = run.system.sampler(next(c for v, c in points if [*v.values()] == ["0.3", "2"]))
    drawer = Drawer(run, 3)
    images = drawer.decode(real_draw(drawer, LABELS, sampler, decode=False).latents, 0.3)
    scored = sweeping.score_images(sweeping.reference_of(run), images, LABELS, 3)
    assert row["metrics"] == pytest.approx(scored.metrics, rel=1e-3, abs=1e-3, nan_ok=True)

    head, _, *lines, real, _, remark = sweeping.table(swept).splitlines()
    assert remark.startswith("Precision and recall: weak features (held-out accuracy")
    assert head.startswith("| decode_radius | guidance | NFE |") and len(lines) == 6
    assert lines[0].startswith("| 0 | 1.5 | 4 |") and real.count("|") == head.count("|")
    assert sweeping.curves(swept).startswith(b"\x89PNG")


# The samplers of the Euclidean baseline


@pytest.fixture(scope="module")
def linear(run, tmp_path_factory):
    config = config_of("--config.space.path=linear")
    other = open_run(config, tmp_path_factory.mktemp("linear"), make_mesh())
    other.artifacts |= run.artifacts
    return other


def drawn_by(run, *options):
    config = config_of("--config.space.path=linear", *options)
    return Drawer(dataclasses.replace(run, config=config), 3).draw(
        LABELS, run.system.sampler(config)
    )


def test_noise_of_an_sde_belongs_to_the_sample(linear):
    options = ["--config.sampler.solver=euler_maruyama", "--config.sampler.steps=4"]
    samples = drawn_by(linear, *options)
    assert samples.evaluations == 8 and samples.trace["radius"].shape == (5,)  # guided
    few = drawn_by(linear, *options, "--config.sampler.batch_size=5")
    assert apart(few.images, samples.images) <= 1
    assert apart(drawn_by(linear, *options[1:]).images, samples.images) > 5  # the ODE
    longer = drawn_by(linear, *options, "--config.sampler.last_step=0.5")
    assert apart(longer.images, samples.images) > 5
    assert sweeping.generation_of(linear, longer.sampler, 3)["last_step"] == 0.5


def test_the_grid_of_the_sampler_may_have_a_shift_of_its_own(linear):
    shifted = drawn_by(linear, "--config.sampler.steps=4", "--config.sampler.time_shift=3")
    t = np.linspace(1, 0, 5)
    np.testing.assert_allclose(shifted.sampler.times(), 3 * t / (1 + 2 * t), rtol=1e-6)
    trained = drawn_by(linear, "--config.sampler.steps=4", "--config.flow.time_shift=3")
    assert trained.sampler == shifted.sampler


@pytest.mark.parity
def test_an_adaptive_solver_counts_what_it_evaluates(linear):
    pytest.importorskip("diffrax")
    option = "--config.sampler.solver=dopri5"
    samples = drawn_by(linear, option)
    fine = drawn_by(linear, "--config.sampler.solver=midpoint", "--config.sampler.steps=200")
    assert apart(samples.images, fine.images) <= 2
    assert samples.sampler.evaluations is None and 13 <= samples.evaluations < 400
    assert sweeping.generation_of(linear, samples.sampler, 3)["evaluations"] == "adaptive"
    few = drawn_by(linear, option, "--config.sampler.batch_size=5")
    assert few.evaluations == samples.evaluations  # without the padding of the last batch
    broken = jax.tree.map(lambda x: x * jnp.nan, linear.artifacts["network"])
    wrong = dataclasses.replace(linear, artifacts=linear.artifacts | {"network": broken})
    assert "did not reach its tolerance" in refusal_of(drawn_by, wrong, option)


def test_guided_channels_are_swept_and_stamped(run, reference):
    points = sweep_configs(run.config, ["guidance_channels=0,3", "guidance=4"])
    swept = sweeping.sweep(run, points, 12, 3)
    stamped = [row["protocol"]["generation"]["guidance"]["channels"] for row in swept["rows"]]
    assert stamped == [0, 3]
    name = "frechet_distance_small_classifier"
    everywhere, three = (row["metrics"][name] for row in swept["rows"])
    assert abs(everywhere - three) > 0.01
    with pytest.raises(UserError, match="guidance_channels=99 is more than the 4 channels"):
        sweeping.sweep(run, sweep_configs(run.config, ["guidance_channels=99"]), 12, 3)


def test_a_sweep_resumes_from_what_it_wrote(run, reference, monkeypatch):
    """After one of four points and a kill: what is there is not drawn again, and stays."""
    points = sweep_configs(run.config, ["decode_radius=0,0.3", "guidance=1.5,1"])
    whole = sweeping.sweep(run, points, 12, 3)
    written = []

    def cut_off(swept):
        written.append(json.loads(json.dumps(swept)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweeping.sweep(run, points, 12, 3, None, cut_off)
    (before,) = written
    assert len(before["rows"]) == 1 and sweeping.curves(before) is None  # of one point

    decoded = []
    real = Drawer.decode
    monkeypatch.setattr(
        Drawer, "decode", lambda self, z, radius: decoded.append(radius) or real(self, z, radius)
    )
    sizes = []
    again = sweeping.sweep(run, points, 12, 3, before, lambda s: sizes.append(len(s["rows"])))
    assert decoded == [0.3, 0.0, 0.3] and sizes == [2, 3, 4]
    assert [row["values"] for row in again["rows"]] == [row["values"] for row in whole["rows"]]
    for row, fresh in zip(again["rows"], whole["rows"], strict=True):
        assert row["metrics"] == pytest.approx(fresh["metrics"], nan_ok=True)
    assert sweeping.table(again) == sweeping.table(whole)

    monkeypatch.setattr(Drawer, "draw", None)  # there is nothing left to draw
    stored = json.loads(json.dumps(whole))
    assert sweeping.table(sweeping.sweep(run, points, 12, 3, stored)) == sweeping.table(whole)
    old = json.dumps(stored).replace('"real_data"', '"yardstick"')  # the old name
    old = json.loads(old.replace('"pixel_classifier"', '"judge"'))
    for row in old["rows"]:  # and from before an option of the sampler
        assert row["protocol"]["generation"]["guidance"].pop("channels") == 0
    assert sweeping.table(sweeping.sweep(run, points, 12, 3, old)) == sweeping.table(whole)
    with pytest.raises(UserError, match="other weights or under another protocol"):
        sweeping.sweep(run, points, 12, 4, stored)
    with pytest.raises(UserError, match="other weights or under another protocol"):
        sweeping.sweep(run, points, 12, 3, stored | {"weights": {"flow": "other"}})
    with pytest.raises(UserError, match="with decode_radius=0.3, guidance=1, which would be lost"):
        sweeping.sweep(run, points[:3], 12, 3, stored)
    for wrong in ({}, {"rows": [1], "weights": {}}, [1]):
        with pytest.raises(UserError, match="holds no sweep"):
            sweeping.sweep(run, points, 12, 3, wrong)


def test_curves_are_drawn_along_words_too():
    points = sweep_configs(config_of(), ["solver=euler,multistep", "steps=2"])
    assert [config.sampler.solver for _, config in points] == ["euler", "multistep"]
    rows = [{"values": values, "nfe": 2, "metrics": {"precision": 0.5}} for values, _ in points]
    drawn = sweeping.curves({"rows": rows, "real_data": {"precision": 0.9}})
    assert drawn.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("sweeps", "words"),
    [
        (["guidance"], "must be KEY=VALUE,VALUE"),
        (["guidance="], "must be KEY=VALUE,VALUE"),
        (["batch_size=1,2"], "batch_size=... cannot be swept; give steps, guidance, solver"),
        (["auto_guidance=a,b"], "cannot be swept; give steps, guidance, solver"),
        (["guidance=1", "guidance=2"], "each KEY once"),
        (["guidance=x"], "must be float, not 'x'"),
        (["decode_radius=3,-1"], "config.sampler.decode_radius=-1.0 must be at least 0"),
        (["solver=rk4"], "config.sampler.solver='rk4' must be one of"),
        (["strength=1"], "strength=... cannot be swept; give steps, guidance"),
    ],
)
def test_sweep_refusals(sweeps, words):
    with pytest.raises(UserError, match=words):
        sweep_configs(config_of(), sweeps)


# Auto-guidance


def test_a_sweep_of_the_scale_of_auto_guidance_holds_the_unguided_point():
    sweeps = ["guidance=1,1.5,2"]
    weak = "--config.sampler.auto_guidance=weak"
    config = config_of(weak, f"--config.sampler.guidance={swept_guidance(sweeps)}")
    points = [config.sampler for _, config in sweep_configs(config, sweeps)]
    assert [(s.guidance, s.auto_guidance) for s in points] == [
        (1.0, ""), (1.5, "weak"), (2.0, "weak")
    ]  # fmt: skip
    assert swept_guidance(["guidance=1", "steps=2"]) == swept_guidance(["steps=2"]) == 1.0
    assert "must be float" in refusal_of(swept_guidance, ["guidance=x"])


@pytest.fixture
def guided_by(run, monkeypatch):
    """The run, guided by another that its folder is made to hold."""

    def guided_by(other, scale=3.0):
        monkeypatch.setattr(weaker, "load_run", lambda folder, mesh: other)
        return with_config(
            run, "--config.sampler.auto_guidance=weak", f"--config.sampler.guidance={scale}"
        )

    return guided_by


def test_guided_by_itself_or_by_a_smaller_network(run, guided_by):
    plain = draw(with_config(run, "--config.sampler.guidance=1"), LABELS, 3)
    own = draw(guided_by(run), LABELS, 3)
    assert apart(own.images, plain.images) <= 1
    assert own.sampler.evaluations == 4 == 2 * plain.sampler.evaluations
    assert "auto-guidance 3" in str(own.sampler)
    assert sweeping.generation_of(run, own.sampler, 3)["guidance"]["auto"] == "weak"

    smaller = with_config(run, "--config.model.width=16")
    smaller.artifacts |= random_weights(smaller.generator, 9)
    assert apart(draw(guided_by(smaller), LABELS, 3).images, plain.images) > 3


def test_a_weaker_run_must_have_the_same_latents(run, guided_by, tmp_path):
    encoder = jax.tree.map(lambda x: x + 1.0, run.artifacts["encoder"])
    strangers = {
        "learnt the velocities of TokenSphere": with_config(run, "--config.space.path=nlerp"),
        "its tokenizer's encoder has other weights": with_config(run, encoder=encoder),
        "must be the run of a 'flow' stage": with_config(run, "--config.stages=vae"),
        "has 12 classes, not 10": with_config(run, "--config.data.num_classes=12"),
        r"has latents of shape \(2, 2, 8\)": with_config(
            run, "--config.tokenizer.latent_channels=8"
        ),
    }
    for words, other in strangers.items():
        with pytest.raises(UserError, match=f"auto_guidance=weak .*{words}") as caught:
            with_weaker(guided_by(other))
        assert "\n" not in str(caught.value)
    with_weaker(guided_by(with_config(run, decoder={})))  # which nothing here depends on
    with_weaker(guided_by(with_config(run, "--config.space.retraction=renormalize")))  # a step's


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"config.tokenizer.blocks": None}, ""),  # from before that option, at its default
        ({"config.tokenizer.pretrained_decoder fingerprint": "abc"}, ""),
        # Weights that a run trained are compared themselves.
        ({"config.tokenizer.pretrained_encoder fingerprint": "abc"}, ""),
        ({"config.tokenizer.blocks": 7}, "config.tokenizer.blocks=7, not 1"),
    ],
)
def test_checks_of_a_weaker_runs_record(run, guided_by, tmp_path, changes, words):
    ours, other = (dataclasses.replace(run, workdir=tmp_path / name) for name in ("ours", "other"))
    for own, change in ((ours, {}), (other, changes)):
        depends = own.records.depends("flow") | change
        depends = {key: value for key, value in depends.items() if value is not None}
        (own.workdir / "stages").mkdir(parents=True)
        record = own.workdir / "stages" / "flow.json"
        record.write_text(json.dumps({"depends": depends, "finished": True, "metrics": {}}))
    guided = dataclasses.replace(guided_by(other), workdir=ours.workdir)
    if not words:
        with_weaker(guided)
        return
    with pytest.raises(UserError, match=f"was trained on other latents: .*{words}"):
        with_weaker(guided)


def test_a_weaker_network_with_another_parameterization_is_translated(run, guided_by):
    """The same weights with the data at t = 1: a velocity of the other sign, at 1 - t."""
    method, params = with_weaker(
        guided_by(with_config(run, "--config.model.parameterization=data_at_one"))
    )
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(2, *method.tokenizer.latent_shape)), jnp.float32)
    t, labels = jnp.array([0.2, 0.7]), jnp.array([1, 2])

    @jax.jit
    def both(params):
        turned = -method.network.apply(params, z, 1 - t, labels)
        return method.weaker.apply(params, z, t, labels), turned

    found, expected = both(params["weaker"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_previews_do_without_the_weaker_network(run, guided_by):
    preview = guided_by(run).generator.preview
    shown = jax.eval_shape(preview, run.artifacts, run.artifacts, {}, jax.random.key(0))
    assert shown.shape == (80, 16, 16, 1)
