"""bfloat16 training against float32: one island of float32 after the other put into bfloat16.

    python -m benchmarks.bf16_training --out=runs/bf16 --steps=2000
    python -m benchmarks.bf16_training --out=runs/bf16 --arms float32 ours everything

The published objective and optimizer of D (docs/systems/hae.md#flow: slerp on token spheres of
radius sqrt(d), shift 8, radial weight 0.1, AdamW, clip 1, EMA 0.9995), at 5 times its learning
rate, on a small LightningDiT without QK-norm and synthetic latents of 10 classes. Runs of one seed
share initial parameters, batches and noise. A folder holds one study, each arm in a separate file;
arms whose file exists are not run again, so the same command resumes a study. Prints the table of
all arms in the folder, and draws their curves.

All arms are measured alike: on held-out latents with the same noise, by the library in float32.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import bf16_twins as twins
from benchmarks import smoke
from benchmarks.bf16_report import draw, print_table
from sphere_jax.cli import run_command
from sphere_jax.common.errors import UserError
from sphere_jax.config.options import OptimizerOptions
from sphere_jax.geometry.spaces import TokenSphere
from sphere_jax.methods.flow import Flow, FlowOptions
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.sit import SiT
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network
from sphere_jax.sampling import Sampler
from sphere_jax.tokenizers.precomputed import Precomputed
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step

SHAPE, CLASSES = (4, 4, 128), 10
WIDTH, HEADS, BATCH = 64, 4, 32
TRAINING, HELD_OUT = 4096, 512

# name -> (compute dtype, what is in bfloat16 beside the products). Seeds beyond the first: --seeds.
ARMS = {
    "float32": (jnp.float32, []),
    "ours": (jnp.bfloat16, []),
    "everything": (jnp.bfloat16, twins.EVERYTHING),
    "float32, nudged": (jnp.float32, []),  # initial parameters off by 1e-6 of themselves
    **{f"ours, but {name}": (jnp.bfloat16, found) for name, found in twins.ISLANDS.items()},
    "ours, but parameters and moments": (jnp.bfloat16, []),
}
HALF_PARAMETERS = ("ours, but parameters and moments", "everything")
SEVERAL_SEEDS = ("float32", "ours")
SETTINGS = ("model", "depth", "qk_norm", "rate", "steps")  # equal for all arms of a study
DEFAULTS = {"depth": 4, "qk_norm": False, "rate": 1e-3}  # of older records, which do not name them
SMOKE = ["--depth=1", "--steps=2", "--every=2", "--seeds=1", "--arms", "float32", "everything"]


def latents(count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` latents (N, 4, 4, 128) of RMS 1 with labels (N,).

    A fixed random network of 8 normal numbers and the class, plus a little noise.
    """
    teacher, rng = np.random.default_rng(12345), np.random.default_rng(seed)
    size = int(np.prod(SHAPE))
    mix, classes = teacher.normal(size=(8, 64)) / np.sqrt(8), teacher.normal(size=(CLASSES, 64))
    out = teacher.normal(size=(64, size)) / 8
    labels = rng.integers(0, CLASSES, count)
    hidden = np.tanh(rng.normal(size=(count, 8)) @ mix + classes[labels])
    z = hidden @ out + 0.2 * rng.normal(size=(count, size))
    z = (z / np.sqrt(np.mean(z**2))).reshape(count, *SHAPE)
    return {"latents": z.astype(np.float32), "labels": labels.astype(np.int32)}


def make_method(model: str, dtype, steps: int, depth: int, qk_norm: bool, rate: float) -> Flow:
    """D's objective with one of the two networks."""
    sizes = (SHAPE, 1, WIDTH, depth, HEADS, CLASSES)
    if model == "sit":
        build = partial(SiT, *sizes)
    else:
        build = partial(LightningDiT, *sizes, time_embedding="fourier", qk_norm=qk_norm)
    network = Network(lambda rngs: build(compute_dtype=dtype, unroll=True, rngs=rngs))
    options = FlowOptions(
        steps=steps,
        batch_size=BATCH,
        ema_decay=0.9995,
        radial_weight=0.1,
        time_density="logit_normal",
        time_shift=8.0,
        optimizer=OptimizerOptions(learning_rate=rate, b2=0.95, clip_norm=1.0),
    )
    sphere = TokenSphere(float(np.sqrt(SHAPE[-1])))
    return Flow(Precomputed(SHAPE), sphere, network, CLASSES, options, Sampler())


def train(arm: str, seed: int, args) -> dict:
    """One arm: its curve of (step, loss of the raw and of the averaged parameters), and how many
    steps had a spike of the gradient norm or numbers that are not finite."""
    dtype, replaced = ARMS[arm]
    make = partial(make_method, **{name: getattr(args, name) for name in SETTINGS})
    method, exact = make(dtype=dtype), make(dtype=jnp.float32)
    optimizer = make_optimizer(method.options.optimizer, args.steps)
    # Every bfloat16 operation rounds what it returns, also inside a fusion.
    options = {**quick_products(), "xla_allow_excess_precision": False}

    params = jax.jit(lambda key: exact.init(key, {}))(jax.random.key(seed))
    if arm == "float32, nudged":
        rng = np.random.default_rng(seed)
        nudge = lambda p: p * (1 + 1e-6 * rng.standard_normal(p.shape, np.float32))  # noqa: E731
        params = jax.tree.map(nudge, params)
    if arm in HALF_PARAMETERS:
        params = jax.tree.map(twins.half, params)
    state = init_state(method, optimizer, jax.random.key(100 + seed), {}, params)
    state = jax.tree.map(jnp.copy, state)
    data = jax.tree.map(jnp.asarray, latents(TRAINING, seed=1))
    held_out = jax.tree.map(jnp.asarray, latents(HELD_OUT, seed=2))
    one_step = make_train_step(method, method.options, optimizer)

    @partial(jax.jit, donate_argnums=0, compiler_options=options)
    def advance(state, data, rows):
        with twins.in_bfloat16(replaced):
            return one_step(state, {}, jax.tree.map(lambda x: x[rows], data))

    @partial(jax.jit, compiler_options=quick_products())
    def measure(params, held_out, key):
        params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        return exact.loss(params, {}, held_out, exact.keys(key, HELD_OUT))[0]

    order, start = np.random.default_rng(seed), time.process_time()
    curve, norms, finite = [], [], 0
    for done in range(0, args.steps + 1, args.every):
        raw, ema = (measure(state[k], held_out, jax.random.key(9)) for k in ("params", "ema"))
        curve.append((done, float(raw), float(ema)))
        if done == args.steps:
            break
        pending = []
        for _ in range(args.every):
            rows = order.integers(0, TRAINING, BATCH).astype(np.int32)
            state, metrics = advance(state, data, rows)
            pending.append((metrics["gradient_norm"], metrics["finite"]))
        norms += [float(norm) for norm, _ in pending]
        finite += sum(bool(ok) for _, ok in pending)
    return {
        "arm": arm,
        "seed": seed,
        **{name: getattr(args, name) for name in SETTINGS},
        "curve": curve,
        "gradient_norm": float(np.median(norms[-500:])),
        "spikes": spikes(np.array(norms)),
        "not_finite": args.steps - finite,
        "seconds": round(time.process_time() - start),
    }


def spikes(norms: np.ndarray, window: int = 50) -> int:
    """Steps whose gradient norm is above 3 times the median of the `window` steps before."""
    before = (np.median(norms[n - window : n]) for n in range(window, len(norms)))
    return sum(bool(now > 3 * usual) for now, usual in zip(norms[window:], before, strict=True))


def read_study(args) -> list[dict]:
    """The records in the folder. Raises UserError where one was made with other settings."""
    found = []
    for path in sorted(args.out.glob("*.json")):
        record = DEFAULTS | json.loads(path.read_text())
        differ = [f"{k} {record[k]}" for k in SETTINGS if record[k] != getattr(args, k)]
        if differ:
            raise UserError(f"{path} was made with {', '.join(differ)}; give another --out.")
        found.append(record)
    return sorted(found, key=lambda record: (list(ARMS).index(record["arm"]), record["seed"]))


def smoke_flags() -> list[str]:
    out, plot = smoke.folder() / "bf16", smoke.folder() / "bf16.png"
    return [f"--out={out}", f"--plot={plot}", *SMOKE]


def main(argv: list[str]) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="folder of the results")
    options.add_argument("--model", choices=("lightning_dit", "sit"), default="lightning_dit")
    options.add_argument("--depth", type=int, default=4, help="blocks (default 4)")
    options.add_argument("--qk_norm", action="store_true")
    options.add_argument("--rate", type=float, default=1e-3, help="learning rate (default 1e-3)")
    options.add_argument("--steps", type=int, default=2000, help="a multiple of --every")
    options.add_argument("--every", type=int, default=100, help="steps between two measurements")
    options.add_argument("--seeds", type=int, default=2, help=f"of {' and '.join(SEVERAL_SEEDS)}")
    options.add_argument("--arms", nargs="*", choices=tuple(ARMS), default=tuple(ARMS))
    options.add_argument("--plot", type=Path, help="draw the curves here")
    args = smoke.parse(options, argv, smoke_flags)
    if args.steps < args.every or args.steps % args.every:
        raise UserError(f"--steps must be a multiple of {args.every}, got {args.steps}.")

    read_study(args)  # refuses, before anything is run
    args.out.mkdir(parents=True, exist_ok=True)
    runs = [(a, s) for a in args.arms for s in range(args.seeds if a in SEVERAL_SEEDS else 1)]
    for arm, seed in runs:
        name = arm.replace(", but", " but").replace(", ", " ").replace(" ", "_")
        path = args.out / f"{name}_{seed}.json"
        if not path.exists():
            found = json.dumps(train(arm, seed, args))
            path.write_text(found)
            print(f"{arm}, seed {seed}: {found}", flush=True)
    found = read_study(args)
    print_table(found)
    if args.plot:
        draw(found, args.plot)


if __name__ == "__main__":
    run_command(main)
