"""bfloat16 compute: what stays float32, read from traced programs, and training."""

import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import equations

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import OptimizerOptions
from sphere_jax.geometry.spaces import TokenSphere
from sphere_jax.methods.flow import Flow, FlowOptions
from sphere_jax.models.lightning_ddt import LightningDDT
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.rae_decoder import RAEDecoder
from sphere_jax.models.sit import SiT
from sphere_jax.models.sphere_encoder import Encoder
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import Sampler
from sphere_jax.tokenizers.precomputed import Precomputed
from sphere_jax.training.flops import scan_arguments
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step

ROOT = Path(__file__).parents[1]
SHAPE, CLASSES, BATCH, DEPTH = (2, 2, 16), 3, 8, 2
SIZES = (SHAPE, 1, 16, DEPTH, 2, CLASSES)
NETWORKS = {
    "lightning_dit": partial(LightningDiT, *SIZES, time_embedding="fourier"),
    "qk_norm": partial(LightningDiT, *SIZES, qk_norm=True),
    "sit": partial(SiT, *SIZES),
    "ddt": partial(LightningDDT, *SIZES, head_width=24, head_depth=1, head_heads=2),
}
HALVES = {  # of autoencoders: the module and what it takes
    "sphere_encoder": (
        partial(Encoder, (8, 8, 3), 6, 4, 16, DEPTH, 2, CLASSES, compute_dtype=jnp.bfloat16),
        (np.zeros((BATCH, 8, 8, 3), np.float32), np.zeros(BATCH, np.int32)),
    ),
    "rae_decoder": (
        partial(RAEDecoder, (2, 2), 12, DEPTH, 16, 2, 24, dtype=jnp.bfloat16),
        (np.zeros((BATCH, 3, 3, 12), np.float32),),  # of another grid, so resized
    ),
}


def flow(name, dtype=jnp.bfloat16):
    network = Network(lambda rngs: NETWORKS[name](compute_dtype=dtype, rngs=rngs))
    stage = FlowOptions(
        time_density="logit_normal",
        time_shift=8.0,
        radial_weight=0.1,
        optimizer=OptimizerOptions(learning_rate=1e-2, b2=0.95, clip_norm=1.0),
    )
    return Flow(Precomputed(SHAPE), TokenSphere(4.0), network, CLASSES, stage, Sampler())


def batch_of(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    centres = np.random.default_rng(7).normal(size=(CLASSES, *SHAPE))
    latents = centres[labels] + 0.3 * rng.normal(size=(count, *SHAPE))
    return {"latents": jnp.asarray(latents, jnp.float32), "labels": jnp.asarray(labels)}


@pytest.fixture(scope="module", params=NETWORKS)
def traced(request):
    """The gradient of the loss in bfloat16, as a list of equations."""
    method, key = flow(request.param), jax.random.key(0)
    params = jax.eval_shape(method.init, key, {})
    gradient = jax.grad(lambda p, batch, key: method.loss(p, {}, batch, method.keys(key, BATCH))[0])
    return list(equations(jax.make_jaxpr(gradient)(params, batch_of(BATCH, 0), key).jaxpr))


def dtypes(traced, name):
    """Of what the primitives of this name return, floating point only."""
    found = [v.aval.dtype for e in traced if e.primitive.name == name for v in e.outvars]
    return {d for d in found if jnp.issubdtype(d, jnp.floating)}


def test_sums_statistics_softmax_angles_and_times_are_float32(traced):
    for name in ("reduce_sum", "rsqrt", "sqrt", "exp", "sin", "cos", "atan2"):
        assert dtypes(traced, name) == {jnp.dtype("float32")}, name


def test_products_are_bfloat16_but_for_those_of_time_and_of_the_softmax_gradient(traced):
    """The time embedding's are in full float32 on every backend."""
    products = [e for e in traced if e.primitive.name == "dot_general"]
    low = [e for e in products if all(v.aval.dtype == jnp.bfloat16 for v in e.invars)]
    exact = [e for e in products if e not in low and e.invars[0].aval.ndim == 2]
    assert exact and len(low) > 3 * len(exact)
    for equation in exact:
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
    logits = [e for e in low if e.outvars[0].aval.dtype == jnp.float32]
    assert logits and all(e.invars[0].aval.ndim >= 4 for e in logits)  # heads beside the batch


@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_between_blocks_and_the_vector_are_float32(name):
    method = flow(name)
    params = jax.eval_shape(method.network.init, jax.random.key(0))
    z, t, labels = jnp.zeros((BATCH, *SHAPE)), jnp.zeros(BATCH), jnp.zeros(BATCH, jnp.int32)
    found = jax.eval_shape(lambda p: method.network.bind(p).features(z, t, labels), params)
    assert len(found) >= 4
    for feature, array in found.items():
        assert array.dtype == jnp.float32, feature


@pytest.mark.parametrize("name", HALVES)
def test_halves_of_autoencoders_keep_float32_tokens_statistics_and_sums(name):
    """Tokens of width 16 are what the scans over blocks carry, and their gradients."""
    build, inputs = HALVES[name]
    network = Network(lambda rngs: build(rngs=rngs))
    params = jax.eval_shape(network.init, jax.random.key(0))
    slope = jax.grad(lambda p: jnp.mean(network.apply(p, *inputs) ** 2))
    traced = list(equations(jax.make_jaxpr(slope)(params).jaxpr))
    for primitive in ("reduce_sum", "rsqrt", "reduce_max"):
        assert dtypes(traced, primitive) == {jnp.dtype("float32")}, primitive
    assert jnp.dtype("bfloat16") in dtypes(traced, "dot_general")
    carried = [v.aval for e in traced if e.primitive.name == "scan" for v in carries(e)]
    tokens = [a for a in carried if a.ndim == 3 and a.shape[-1] == 16]
    assert len(tokens) == 2 and all(a.dtype == jnp.float32 for a in tokens)


def carries(scan):
    """The variables that a scan hands on from one iteration to the next."""
    consts, carried = scan_arguments(scan.params)
    return scan.invars[consts : consts + carried]


def train(dtype, steps):
    method = flow("lightning_dit", dtype)
    optimizer = make_optimizer(method.options.optimizer, steps)
    state = init_state(method, optimizer, jax.random.key(1), {})
    step = jax.jit(make_train_step(method, method.options, optimizer))
    losses = []
    for n in range(steps):
        state, metrics = step(state, {}, batch_of(BATCH, n))
        losses.append(float(metrics["loss"]))
    return np.array(losses), state


@pytest.mark.slow
def test_bfloat16_trains_like_float32():
    """30 steps on the same batches and noise: no loss differs by more than a fifth of the fall, and
    the stored state is float32."""
    (exact, _), (losses, state) = train(jnp.float32, 30), train(jnp.bfloat16, 30)
    fall = exact[:5].mean() - exact[-5:].mean()
    assert fall > 0.05
    np.testing.assert_allclose(losses, exact, atol=fall / 5)
    assert np.any(losses != exact)
    stored = jax.tree.leaves({k: state[k] for k in ("params", "ema", "optimizer")})
    assert all(x.dtype == jnp.float32 for x in stored if jnp.issubdtype(x.dtype, jnp.floating))


def test_the_benchmark_refuses_a_folder_of_other_settings(tmp_path, monkeypatch, capsys):
    """Records from before rate and QK-norm were written down have the defaults."""
    monkeypatch.syspath_prepend(ROOT)
    study = importlib.import_module("benchmarks.bf16_training")
    record = {"arm": "float32", "seed": 0, "model": "lightning_dit", "steps": 100}
    record |= {"curve": [[0, 2.5, 2.5], [100, 2.0, 2.25]]}
    record |= {"gradient_norm": 1.0, "spikes": 0, "not_finite": 0}
    (tmp_path / "float32_0.json").write_text(json.dumps(record))
    arguments = [f"--out={tmp_path}", "--arms", "float32", "--seeds=1"]
    study.main([*arguments, "--steps=100"])
    assert "at step 0 2.5000" in (table := capsys.readouterr().out)
    assert "| float32 | 0 | 2.0000 |" in table
    for other, options in (
        (["--steps=200"], "steps 100"),
        (["--steps=100", "--rate=0.1", "--qk_norm"], "qk_norm False, rate 0.001"),
        (["--steps=100", "--model=sit"], "model lightning_dit"),
    ):
        with pytest.raises(UserError, match=f"was made with {options}; give another --out"):
            study.main(arguments + other)
    for steps in (0, 150):
        with pytest.raises(UserError, match=f"multiple of 100, got {steps}"):
            study.main([f"--out={tmp_path / 'new'}", f"--steps={steps}"])
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_benchmark_runs_resumes_and_measures(tmp_path):
    command = [sys.executable, "-m", "benchmarks.bf16_training", f"--out={tmp_path}"]
    command += [
        "--steps=30",
        "--every=15",
        "--depth=2",
        "--seeds=1",
        "--arms",
        "float32",
        "ours",
        "everything",
    ]
    for _ in range(2):  # the second finds all arms done
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=True
        )
    assert "seed 0: {" not in done.stdout and "| everything | 0 |" in done.stdout
    found = {p.stem: json.loads(p.read_text()) for p in tmp_path.glob("*.json")}
    exact, ours = (found[f"{arm}_0"]["curve"][-1][1] for arm in ("float32", "ours"))
    assert exact < found["float32_0"]["curve"][0][1]
    assert abs(ours / exact - 1) < 0.005
