"""The flow objective against float64 numpy, its noise, and what one config value changes."""

import copy
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.config.reading import read_config
from sphere_jax.data.pipeline import Batches
from sphere_jax.data.source import Source, Split
from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.geometry.spaces import make_space
from sphere_jax.methods.flow import Flow, FlowOptions, jacobi_weight
from sphere_jax.methods.on_latents import encoded_split
from sphere_jax.nn.functional import Network
from sphere_jax.runs.run import Run
from sphere_jax.runs.system import System
from sphere_jax.sampling import Sampler, noise_of
from sphere_jax.tokenizers.precomputed import Precomputed

PATHS = ("linear", "polar", "data_projected", "shell_linear", "nlerp", "slerp")
SHAPE = (2, 3, 4)  # h, w, d
CLASSES = 5


class Affine(Network):
    """v = a z + b t + table[label], and a record of its inputs."""

    def __init__(self):
        self.calls = []

    def apply(self, params, z, t, labels):
        self.calls.append((z, t, labels))
        v = 0.7 * z + 0.3 * t[:, None, None, None] + params["network"][labels][:, None, None]
        return v * jnp.arange(1.0, 5.0).reshape(1, 1, 1, 4)  # not radial


PARAMS = {"network": {"network": jnp.linspace(-1, 1, 4 * (CLASSES + 1)).reshape(CLASSES + 1, 4)}}


def flow(path="slerp", sphere="token", **settings):
    return Flow(
        Precomputed(SHAPE),
        make_space(path, sphere, 0.0, SHAPE),
        Affine(),
        CLASSES,
        FlowOptions(**settings),
        Sampler(steps=2),
    )


def batch_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "latents": rng.normal(size=(count, *SHAPE)).astype(np.float32),
        "labels": rng.integers(0, CLASSES, count).astype(np.int32),
    }


def keys_of(count, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(np.arange(count))


def evaluate(methods, batch, keys):
    """For every method `(loss, metrics, (z_t, t, labels))`, the last being the inputs of the
    network. One program: drawing is slow to compile, and all draw the same."""

    @jax.jit
    def all_of_them(batch, keys):
        out = {}
        for name, method in methods.items():
            loss, metrics = method.loss(PARAMS, {}, batch, keys)
            out[name] = loss, metrics, method.network.calls.pop()
        return out

    return all_of_them(batch, keys)


def by_hand(path, sphere, tangent_projection, batch, noise, t, labels):
    """Errors of every number (B, N, n), radial parts and angles (B, N), in float64: written from
    docs/systems/spherical_flow.md#objective for one path at a time."""
    rows = (len(t), -1, SHAPE[-1]) if sphere == "token" else (len(t), 1, int(np.prod(SHAPE)))
    z0, z1 = (x.astype(np.float64).reshape(rows) for x in (batch["latents"], noise))
    t = t.astype(np.float64)[:, None, None]
    radius = np.sqrt(rows[-1] if sphere == "token" else np.prod(SHAPE))
    norms = np.linalg.norm(z0, axis=-1) * np.linalg.norm(z1, axis=-1)
    omega = np.arccos((z0 * z1).sum(-1) / norms)
    r0, r1 = (np.linalg.norm(z, axis=-1, keepdims=True) for z in (z0, z1))
    if path not in ("linear", "polar"):
        z0 = radius * z0 / r0
    if path not in ("linear", "polar", "data_projected"):
        z1 = radius * z1 / r1
    if path in ("linear", "data_projected", "shell_linear"):
        z_t, u_t = (1 - t) * z0 + t * z1, z1 - z0
    elif path == "nlerp":
        chord = (1 - t) * z0 + t * z1
        length = np.linalg.norm(chord, axis=-1, keepdims=True)
        n = chord / length
        change = z1 - z0
        z_t = radius * n
        u_t = radius / length * (change - n * (n * change).sum(-1, keepdims=True))
    elif path == "polar":
        a = omega[..., None]
        n = (np.sin((1 - t) * a) * z0 / r0 + np.sin(t * a) * z1 / r1) / np.sin(a)
        turn = a / np.sin(a) * (np.cos(t * a) * z1 / r1 - np.cos((1 - t) * a) * z0 / r0)
        norm = (1 - t) * r0 + t * r1
        z_t, u_t = norm * n, (r1 - r0) * n + norm * turn
    else:
        a = omega[..., None]
        z_t = (np.sin((1 - t) * a) * z0 + np.sin(t * a) * z1) / np.sin(a)
        u_t = a / np.sin(a) * (np.cos(t * a) * z1 - np.cos((1 - t) * a) * z0)
    table = np.asarray(PARAMS["network"]["network"], np.float64)[labels]
    v = 0.7 * z_t.reshape(-1, *SHAPE) + 0.3 * t[..., None] + table[:, None, None]
    v = (v * np.arange(1.0, 5.0)).reshape(rows)
    radial = np.zeros_like(v)
    if path in ("nlerp", "slerp"):
        n = z_t / np.linalg.norm(z_t, axis=-1, keepdims=True)
        radial = n * (n * v).sum(-1, keepdims=True)
    compared = v - radial if tangent_projection else v
    return (compared - u_t) ** 2, radial**2, omega


VARIANTS = list(itertools.product(PATHS, ("token", "global"), (True, False)))


DIRECTIONS = ("jacobi", "jacobi_reversed")


class Scaled(Affine):
    """`a f(b z)` of the affine f."""

    def __init__(self, a, b):
        super().__init__()
        self.scales = a, b

    def apply(self, params, z, t, labels):
        a, b = self.scales
        return a * super().apply(params, b * z, t, labels)


@pytest.fixture(scope="module")
def noise():
    draw = jax.jit(jax.vmap(lambda key: jax.random.normal(jax.random.split(key, 3)[0], SHAPE)))
    return np.asarray(draw(keys_of(16)))


@pytest.fixture(scope="module")
def evaluated():
    settings = dict(radial_weight=0.25, label_dropout=0.5, time_low=0.1)
    methods = {
        "/".join(map(str, variant)): flow(*variant[:2], tangent_projection=variant[2], **settings)
        for variant in VARIANTS
    }
    for direction, sphere in itertools.product(DIRECTIONS, ("token", "global")):
        methods[f"{direction}/{sphere}"] = flow("slerp", sphere, loss_weight=direction, **settings)
    token = methods["jacobi/token"]
    unit, radius = make_space("slerp", "token", 1.0, SHAPE), token.space.radius
    methods["unit"] = dataclasses.replace(token, space=unit, network=Scaled(1.0, radius))
    methods["of the radius"] = dataclasses.replace(token, network=Scaled(radius, 1.0))
    for path in ("linear", "slerp"):
        methods[f"direction/{path}"] = flow(path, direction_weight=0.5, **settings)
    return evaluate(methods, batch_of(16), keys_of(16))


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_the_direction_loss_is_one_minus_the_cosine_of_every_token(path, evaluated, noise):
    """docs/flow.md: LightningDiT's `1 - cos(v, u)`, over channels."""
    plain, metrics, (_, t, labels) = evaluated[f"{path}/token/True"]
    loss, reported, (z_t, _, _) = evaluated[f"direction/{path}"]
    batch, t, labels = batch_of(16), np.asarray(t), np.asarray(labels)
    space = make_space(path, "token", 0.0, SHAPE)
    _, u_t = space.interpolate(space.project(batch["latents"]), space.prior(noise), t)
    v, _ = space.split(z_t, flow(path).network.apply(PARAMS["network"], z_t, t, labels))
    v, u_t = (np.asarray(x, np.float64).reshape(-1, SHAPE[-1]) for x in (v, u_t))
    cosine = (v * u_t).sum(1) / np.linalg.norm(v, axis=1) / np.linalg.norm(u_t, axis=1)
    np.testing.assert_allclose(reported["direction_error"], np.mean(1 - cosine), rtol=1e-4)
    np.testing.assert_allclose(loss - plain, 0.5 * np.mean(1 - cosine), rtol=1e-3)
    assert "direction_error" not in metrics


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "/".join(map(str, variant)))
def test_the_loss_by_hand(variant, evaluated, noise):
    loss, metrics, (_, t, labels) = evaluated["/".join(map(str, variant))]
    found = by_hand(*variant, batch_of(16), noise, np.asarray(t), np.asarray(labels))
    error, radial = np.mean(found[0]), np.mean(found[1])
    assert (radial > 0.1) == (variant[0] in ("nlerp", "slerp"))
    np.testing.assert_allclose(metrics["velocity_error"], error, rtol=2e-5)
    np.testing.assert_allclose(metrics["radial_error"], radial, rtol=2e-5, atol=1e-12)
    np.testing.assert_allclose(loss, error + 0.25 * radial, rtol=2e-5)


@pytest.mark.parametrize("path", ["nlerp", "slerp"])
def test_tangent_projection_is_what_is_compared(path, evaluated):
    on, off = (evaluated[f"{path}/token/{projected}"] for projected in (True, False))
    # The target is tangent, so the two differ by the radial part alone.
    np.testing.assert_allclose(off[0] - on[0], on[1]["radial_error"], rtol=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_jacobi_weight_of_a_quarter_circle(direction):
    """docs/systems/hae.md#rjf: 0.405 at one end, 0.81 midway, 1 at the other."""
    angles = jnp.array([[np.pi / 2, 1e-5]] * 3)
    found = np.asarray(jacobi_weight(angles, jnp.array([0.0, 0.5, 1.0]), direction))
    expected = np.array([4 / np.pi**2, 8 / np.pi**2, 1.0])  # the data end first
    assert expected[:2].round(3).tolist() == [0.405, 0.811]
    expected = expected if direction == "jacobi" else expected[::-1]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1], 1.0)


@pytest.mark.parametrize("sphere", ["token", "global"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_row_is_weighted_by_its_own_angle(direction, sphere, evaluated, noise):
    plain, metrics, (_, t, labels) = evaluated[f"slerp/{sphere}/True"]
    t, labels = np.asarray(t), np.asarray(labels)
    squares, _, omega = by_hand("slerp", sphere, True, batch_of(16), noise, t, labels)
    left = 1 - t if direction == "jacobi" else t
    weight = np.sinc(left[:, None] * omega / np.pi) ** 2
    loss, reported, _ = evaluated[f"{direction}/{sphere}"]
    expected = np.mean(weight[..., None] * squares) + 0.25 * metrics["radial_error"]
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    assert loss < 0.95 * plain
    for name in metrics:  # reported without the weight, to compare runs by
        np.testing.assert_allclose(reported[name], metrics[name], rtol=1e-6)


def test_velocities_in_units_of_the_radius_scale_the_loss_by_its_square(evaluated):
    """What configs/imagenet_rjf.py states about RJF's unit spheres (docs/systems/hae.md#rjf)."""
    np.testing.assert_allclose(
        evaluated["of the radius"][0], SHAPE[-1] * evaluated["unit"][0], rtol=1e-5
    )


@pytest.fixture(scope="module")
def drawn():
    """what networks were given for 4,000 samples: (t, labels) by name."""
    ranged = dict(time_density="uniform", time_low=0.25, time_high=0.5)
    methods = {f"rate {rate}": flow(label_dropout=rate) for rate in (0.0, 0.1, 1.0)}
    methods |= {"ranged": flow(**ranged), "shifted": flow(**ranged, time_shift=3.0)}
    methods["dimension"] = flow(**ranged, time_shift=0.0)
    out = evaluate(methods, batch_of(4000), keys_of(4000))
    return {name: (np.asarray(t), np.asarray(y)) for name, (_, _, (_, t, y)) in out.items()}


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_labels_are_dropped_at_the_given_rate(rate, drawn):
    t, labels = drawn[f"rate {rate}"]
    dropped = labels == CLASSES
    assert abs(dropped.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / 4000) + 1e-9
    np.testing.assert_array_equal(labels[~dropped], batch_of(4000)["labels"][~dropped])
    if 0 < rate < 1:  # which are dropped has nothing to do with the time
        assert abs(np.corrcoef(dropped, t)[0, 1]) < 0.07


def test_times_obey_the_config(drawn):
    (t, _), (shifted, _) = drawn["ranged"], drawn["shifted"]
    assert 0.25 <= t.min() < 0.26 and 0.49 < t.max() <= 0.5
    np.testing.assert_allclose(shifted, 3 * t / (1 + 2 * t), rtol=1e-5)
    dimension, _ = drawn["dimension"]
    a = np.sqrt(np.prod(SHAPE) / 4096)
    np.testing.assert_allclose(dimension, a * t / (1 + (a - 1) * t), rtol=1e-5)


def test_keys_do_not_depend_on_how_a_batch_is_split():
    batch, keys, method = batch_of(8), keys_of(8), flow(radial_weight=0.5, label_dropout=0.5)
    order = np.array([5, 0, 3, 6, 1, 7, 2, 4]).reshape(4, 2)

    @jax.jit
    def whole_and_parts(batch, keys):
        def loss(rows):
            return method.loss(PARAMS, {}, {k: v[rows] for k, v in batch.items()}, keys[rows])[0]

        return loss(jnp.arange(8)), jax.vmap(loss)(order)

    whole, parts = whole_and_parts(jax.tree.map(jnp.asarray, batch), keys)
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-6)
    assert np.ptp(parts) > 0.01


def test_a_sample_of_the_posterior_belongs_to_its_key():
    """Latents with deviations are drawn anew for new keys, by noise of their own."""
    batch, method = batch_of(4000), flow()
    std = np.random.default_rng(5).uniform(0.1, 3.0, batch["latents"].shape).astype(np.float32)
    moments = batch | {"latent_std": std}

    @jax.jit
    def draw(keys, batch):
        return method.latents_of({}, batch, keys)

    with pytest.raises(ValueError, match="need the keys"):
        method.latents_of({}, moments)
    first, again, other = (draw(keys_of(4000, seed), moments) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    few = {name: rows[7:9] for name, rows in moments.items()}
    np.testing.assert_allclose(draw(keys_of(4000)[7:9], few), first[7:9], atol=1e-5)
    np.testing.assert_array_equal(draw(keys_of(4000), batch), batch["latents"])
    noises = [(np.asarray(x, np.float64) - batch["latents"]) / std for x in (first, other)]
    noise_keys = jax.vmap(lambda k: jax.random.split(k, 3))(keys_of(4000))[:, 0]
    noises.append(np.asarray(noise_of(noise_keys, SHAPE), np.float64))  # the path's end
    for a in noises:
        assert abs(a.mean()) < 0.015 and abs(a.std() - 1) < 0.015
    for a, b in itertools.combinations(noises, 2):
        assert abs(np.mean(a * b)) < 0.015


RAW = {
    "stages": ("flow",),
    "data": {"source": "latents", "num_classes": CLASSES},
    "tokenizer": {"name": "precomputed", "latent_shape": SHAPE},
    "model": {"width": 16, "depth": 1, "heads": 2},
    "flow": {"steps": 4, "batch_size": 8, "label_dropout": 0.5},
}


def test_the_sampler_uses_the_shift_of_training():
    for shift, expected in ((3.0, 3.0), (0.0, np.sqrt(np.prod(SHAPE) / 4096))):
        config = read_config(RAW | {"flow": RAW["flow"] | {"time_shift": shift}})
        assert System(config).generator.sampler.shift == pytest.approx(expected)


def recorder(space, noises):
    """The space, which appends the noise it is given to a list."""

    class Recorder(type(space)):
        def prior(self, noise):
            noises.append(noise)
            return super().prior(noise)

    return Recorder(**{f.name: getattr(space, f.name) for f in dataclasses.fields(space)})


def test_one_config_value_changes_the_geometry_and_nothing_else(tmp_path):
    mesh = make_mesh()
    source = Source(batch_of(40))
    orders, weights, methods = {}, {}, {}
    for path in PATHS:
        config = read_config(copy.deepcopy(RAW) | {"space": {"path": path}})
        run = Run(config, tmp_path, mesh)
        methods[path] = method = run.methods["flow"]
        data = method.training_data(Split(source, source), {}, run.map_over)
        batches = Batches(data.train, 8, run.task("flow").seed, batch_sharding(mesh))
        orders[path] = [np.asarray(next(batches)["labels"]).tolist() for _ in range(8)]
        weights[path] = jax.jit(method.init)(jax.random.key(0), {})

    @jax.jit
    def losses(batch, keys):
        out = {}
        for path, method in methods.items():
            network, noises = Affine(), []
            space = recorder(method.space, noises)
            recorded = dataclasses.replace(method, network=network, space=space)
            loss, _ = recorded.loss(PARAMS, {}, batch, keys)
            z_t, t, labels = network.calls.pop()
            out[path] = {"same": (t, labels, noises.pop()), "other": (loss, z_t)}
        return out

    out = losses(batch_of(8), keys_of(8))
    for path in PATHS[1:]:
        assert orders[path] == orders["linear"]
        jax.tree.map(np.testing.assert_array_equal, weights[path], weights["linear"])
        jax.tree.map(np.testing.assert_array_equal, out[path]["same"], out["linear"]["same"])
    for a, b in itertools.combinations(PATHS, 2):
        for x, y in zip(out[a]["other"], out[b]["other"], strict=True):
            assert np.any(x != y), (a, b)


@pytest.mark.parametrize("path", PATHS)
def test_samples_end_on_the_space(path):
    method = flow(path)
    labels = jnp.zeros((6,), jnp.int32)
    generate = jax.jit(lambda *args: method.generate(PARAMS, *args, 1.0, method.sampler))
    latents, trace = generate(keys_of(6), labels)
    np.testing.assert_allclose(latents, method.space.project(latents), rtol=1e-5, atol=1e-6)
    assert trace["radius"].shape == (3,)


def test_without_a_decoder_there_is_no_preview():
    assert flow().preview(PARAMS, {}, batch_of(4), jax.random.key(0)) is None


def test_an_image_whose_latents_are_not_finite_is_named(tmp_path):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    split = Split(*(Source({"images": images, "labels": np.zeros(4, np.int32)}) for _ in "ab"))
    broken = np.zeros((4, 2, 2, 4), np.float32)
    broken[2, 1, 0, 3] = np.nan
    tokenizer = Precomputed((2, 2, 4))
    words = refusal_of(encoded_split, tokenizer, split, {}, lambda *given: {"latents": broken})
    assert "latents that are not finite for image 2 of 4; check its weights" in words
