"""Which operation of a spherical flow breaks in bfloat16, and which number shows it. Seconds.

    python -m benchmarks.bf16

Every table holds an operation in bfloat16 (`bf16_twins.py`) against the same in float64 or in the
library's float32, on random vectors of the published sizes: A (d = 32, R = sqrt(32)), RJF (d = 768,
R = 1), D (d = 1024, R = 32). Operations run one by one, so each rounds its result. The effect on
training is measured by `benchmarks.bf16_training`.
"""

import argparse
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import bf16_twins as twins
from benchmarks import smoke
from benchmarks.bf16_twins import half
from sphere_jax.cli import run_command
from sphere_jax.geometry import sphere
from sphere_jax.geometry.spaces import TokenSphere
from sphere_jax.nn.embeddings import time_sinusoids
from sphere_jax.nn.norms import LayerNorm, RMSNorm
from sphere_jax.sampling import sample_times, time_grid

SYSTEMS = {  # d, R, time density, shift
    "A": (32, math.sqrt(32), "uniform", 1.0),
    "RJF": (768, 1.0, "logit_normal", math.sqrt(48)),
    "D": (1024, 32.0, "logit_normal", 8.0),
}


def table(title: str, columns: list[str], rows: dict[str, list]):
    """A Markdown table; floats to two digits."""
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, values in rows.items():
        shown = (f"{v:.1e}" if isinstance(v, float) else str(v) for v in values)
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def f64(x):
    return np.asarray(jnp.asarray(x).astype(jnp.float32), np.float64)


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(f64(x)))))


def apart(a, b) -> float:
    """Root mean square of a - b over that of b."""
    return rms(f64(a) - f64(b)) / rms(b)


def angles(rng, size):
    """Mean absolute error of the angle between unit vectors."""
    found = {}
    for theta in (0.01, 0.05, 0.3, math.pi / 2, 3.0, math.pi - 0.01):
        u, q = rng.normal(size=(2, size(256), 1024))
        u /= np.linalg.norm(u, axis=-1, keepdims=True)
        q -= np.sum(u * q, -1, keepdims=True) * u
        q /= np.linalg.norm(q, axis=-1, keepdims=True)
        w = math.cos(theta) * u + math.sin(theta) * q
        a, b = half(u, w)
        chord = [jnp.sqrt(jnp.sum(jnp.square(x), -1)) for x in (a - b, a + b)]
        ways = (twins.angle(u, w), 2 * jnp.arctan2(*chord), sphere.angle(u, w))
        found[f"{theta:.2f} rad"] = [float(np.mean(np.abs(f64(x) - theta))) for x in ways]
    columns = ["arccos, bfloat16", "2 atan2, bfloat16", "2 atan2, float32 (ours)"]
    table("Angle, d = 1024: mean absolute error, rad", columns, found)


def pairs(name, rng, rows):
    """Space, data and noise (rows, 1, 1, d) and times (rows,) of a system."""
    d, radius, density, shift = SYSTEMS[name]
    space = TokenSphere(radius)
    z0, z1 = (space.project(rng.normal(size=(rows, 1, 1, d)).astype(np.float32)) for _ in range(2))
    keys = jax.random.split(jax.random.key(0), rows)
    return space, z0, z1, sample_times(keys, density, shift=shift)


def geometry(rng, size):
    """The path, the projection and the loss of the three systems."""
    found = {}
    for name in SYSTEMS:
        space, z0, z1, t = pairs(name, rng, size(2048))
        z_t, u_t = space.interpolate(z0, z1, t)
        low_z, low_u = twins.interpolate(space, z0, z1, t)
        leak = jnp.abs(sphere.dot(sphere.normalize(low_z), sphere.normalize(low_u)))
        row = [apart(low_z, z_t), float(space.norm_error(low_z)), apart(low_u, u_t)]
        row.append(float(jnp.mean(leak)))
        for ratio in (1.0, 30.0):  # radial over tangent part of the input
            v = u_t + ratio * rms(u_t) / rms(z_t) * z_t
            left = twins.split(space, z_t, v)[0].astype(jnp.float32)
            row.append(float(jnp.mean(jnp.abs(space.split(z_t, left)[1]))) / rms(u_t))
        v = u_t + 0.05 * rms(u_t) * rng.normal(size=u_t.shape).astype(np.float32)
        exact = jnp.mean((space.tangent(z_t, v) - u_t) ** 2)
        low = (twins.split(space, low_z, v)[0] - low_u).astype(jnp.float32)
        row.append(float(jnp.mean(low**2) / exact - 1))
        found[name] = row
    columns = ["z_t", "largest radius error", "u_t", "cosine of u_t and z_t",
               "radial left, 1:1", "radial left, 30:1", "loss of a 5 % error"]  # fmt: skip
    table("Geometry in bfloat16: relative errors", columns, found)


def times(rng, size):
    """Errors of times near 1 in bfloat16, and of their features."""
    count = size(20_000)
    found, keys = {}, jax.random.split(jax.random.key(0), count)
    frequencies = jax.random.normal(jax.random.key(1), (256,))
    for name, (_, _, density, shift) in SYSTEMS.items():
        t, grid = sample_times(keys, density, shift=shift), time_grid(50, shift)
        rounded = f64(half(grid))
        step = np.array([1.0, grid[1]], np.float32)  # the first step of the sampler
        row = [f"{np.quantile(t, 0.05):.2f} to {np.quantile(t, 0.95):.2f}"]
        row += [len(np.unique(f64(half(t)))), len(np.unique(rounded)) - 1]
        row.append(float(np.max(np.abs(np.diff(rounded) / np.diff(grid) - 1))))
        for features in ("sinusoid", "fourier"):
            f = None if features == "sinusoid" else frequencies
            exact = time_sinusoids(step) if f is None else fourier(step, f)
            low = f64(twins.time_features(step, f))
            row.append(rms(low[1] - f64(exact)[1]) / rms(f64(exact)[1] - f64(exact)[0]))
        found[f"{name}, shift {shift:.3g}"] = row
    columns = ["t, 5 to 95 %", f"values among {count:,}", "steps left of 50", "worst error of a dt",
               "error of sinusoids / change in a step", "of Fourier features"]  # fmt: skip
    table("Times in bfloat16", columns, found)


def fourier(t, frequencies):
    angles = 2 * np.pi * jnp.asarray(t)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def sampling(rng, size):
    """50 Euler steps from noise to data: distance left, rad.

    A step takes the velocity of the exact geodesic at its time, whatever the state has become, so
    later steps do not correct rounding errors.
    """
    found, exactly = {}, {"xla_allow_excess_precision": False}  # operations round, as above
    for name, (_, _, _, shift) in SYSTEMS.items():
        space, *ends, _ = pairs(name, rng, size(2048))
        z0, z1 = (z[: size(256)] for z in ends)
        grid, row = time_grid(50, shift), []
        for state, time, move in (
            (half, half, twins.exp_step),
            (half, jnp.float32, _float32_step),
            (jnp.float32, half, _float32_step),
            (jnp.float32, jnp.float32, _float32_step),
        ):

            @partial(jax.jit, compiler_options=exactly)
            def step(z, z0, z1, t, t_next, space=space, state=state, move=move):
                v = space.interpolate(z0, z1, jnp.full(len(z), t, jnp.float32))[1]
                return state(move(space, z, v, t_next - t))

            z = state(z1)
            for t, t_next in zip(grid[:-1], grid[1:], strict=True):
                z = step(z, z0, z1, time(t), time(t_next))
            row.append(float(jnp.mean(space.distance(z, z0))) / space.radius)
        found[name] = row
    columns = ["all bfloat16", "state bfloat16", "times bfloat16", "float32 (ours)"]
    table("50 sampling steps along exact velocities: distance from the end, rad", columns, found)


def _float32_step(space, z, v, dt):
    return space.step(z, v, dt)


def depth(rng, size):
    """The residual stream of 28 blocks: error of the sum of all branches."""
    found = {}
    for scale in (1.0, 0.1, 0.01):
        x = rng.normal(size=(size(256), 1152))
        low, full, exact = half(x), jnp.float32(x), x
        for _ in range(56):
            branch = scale * rng.normal(size=x.shape)
            exact, low, full = exact + branch, low + half(branch), full + half(branch)
        row = [apart(f64(y) - x, exact - x) for y in (low, full)]
        found[f"branches of {scale:g}"] = row
    columns = ["stream bfloat16", "stream float32 (ours)"]
    table("56 additions to a residual stream of RMS 1: relative error of their sum", columns, found)


def norms(rng, size):
    """Norms with their statistics in bfloat16, width 1152."""
    found = {}
    for offset in (0.0, 3.0, 30.0):
        x = jnp.asarray(rng.normal(size=(size(512), 1152)) + offset, jnp.float32)
        row = []
        for norm, twin in ((RMSNorm(1152), twins.rms_norm), (LayerNorm(1152), twins.layer_norm)):
            row += [apart(twin(norm, x), norm(x)), apart(norm(half(x)), norm(x))]
        found[f"mean {offset:g}, deviation 1"] = row
    columns = ["RMSNorm, statistics bfloat16", "float32 of bfloat16 tokens",
               "LayerNorm, statistics bfloat16", "float32 of bfloat16 tokens"]  # fmt: skip
    table("Norms: relative error", columns, found)


def attention(rng, size):
    """Attention weights: total variation between exact ones and those of rounded logits."""
    found = {}
    for scale in (1, 4, 16, 64):
        q, k = np.sqrt(scale) * rng.normal(size=(2, size(256), 64))
        exact = jax.nn.softmax(jnp.asarray(q @ k.T / 8, jnp.float32))
        low_q, low_k = half(q, k)
        logits = jnp.einsum("qd,kd->qk", low_q, low_k, preferred_element_type=jnp.float32) / 8
        low = jax.nn.softmax(half(logits))
        ways = (low, jax.nn.softmax(logits))
        found[f"deviation {scale}"] = [
            float(np.mean(np.abs(f64(w) - f64(exact)).sum(-1) / 2)) for w in ways
        ] + [float(np.max(np.abs(f64(low).sum(-1) - 1)))]
    columns = ["softmax bfloat16", "softmax float32 of bfloat16 q, k (ours)", "error of sum 1"]
    table("Attention, 256 tokens, by size of the logits", columns, found)


def sums(rng, size):
    """The gradient of a bias: a column sum over all tokens of a batch."""
    found = {}
    for rows in map(size, (512, 8192, 131_072)):
        g = half(0.1 + rng.standard_normal((rows, 16), np.float32))
        exact = f64(g).sum(0)
        broadcast = jax.jit(lambda b, n=rows: jnp.broadcast_to(b[None], (n, 16)))
        ways = (
            jax.lax.fori_loop(0, rows, lambda i, s, g=g: s + g[i], jnp.zeros(16, half(0.0).dtype)),
            jax.vjp(broadcast, half(np.zeros(16)))[1](g)[0],
            jax.vjp(broadcast, jnp.zeros(16))[1](g.astype(jnp.float32))[0],
        )
        found[f"{rows} rows"] = [apart(w, exact) for w in ways]
    columns = ["one bfloat16 accumulator", "XLA's bfloat16 sum on this CPU", "float32 (ours)"]
    table("Sum over rows of numbers of mean 0.1 and deviation 1: relative error", columns, found)


def updates(rng, size):
    """Weights, moments and averages that are too large for their updates."""
    columns = ["stay as they are", "relative error of the step made"]
    count = size(100_000)
    matrix = half(rng.uniform(-1, 1, count) * math.sqrt(6 / (2 * 1152)))  # Xavier, width 1152
    found = {}
    for rate in (1e-3, 2e-4, 2e-5):
        for name, weights in (("kernel", matrix), ("norm scale of 1", half(np.ones(count)))):
            step = rate * rng.choice([-1.0, 1.0], weights.shape)
            made = f64(weights - half(step)) - f64(weights)
            found[f"{name}, step {rate:g}"] = [f"{np.mean(made == 0):.0%}", apart(-made, step)]
    table("Parameters in bfloat16, one step of Adam", columns, found)
    found, steps = {}, size(5000)
    for decay in (0.99, 0.9995, 0.9999):
        low, exact = half(1.0), 1.0
        for _ in range(steps):  # parameters have gone from 1 to 1.1
            exact += (1 - decay) * (1.1 - exact)
            low = _averaged(low, decay)
        found[f"average, decay {decay:g}"] = [f"{float(low):.4f} for {exact:.4f}"]
    title = f"Averages of a parameter that went from 1 to 1.1, {steps:,} updates"
    table(title, ["bfloat16"], found)


@partial(jax.jit, static_argnums=1)
def _averaged(m, decay):
    """One update of an average that is stored in bfloat16 and computed in float32."""
    m = m.astype(jnp.float32)
    return half(m + (1 - decay) * (1.1 - m))


def main(argv: list[str]) -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--part", type=float, default=1.0, help="of the random vectors (default 1)")
    args = smoke.parse(flags, argv, lambda: ["--part=0.01"])
    rng = np.random.default_rng(args.seed)
    for study in (angles, geometry, sampling, depth, norms, attention, sums, updates, times):
        study(rng, lambda count: max(4, round(args.part * count)))


if __name__ == "__main__":
    run_command(main)
