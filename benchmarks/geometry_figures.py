"""Draws the figures of docs/geometry.md and prints every number that the page quotes.

    python -m benchmarks.geometry_figures --out=docs/images

Everything is computed by the library's own functions, on the CPU, in about a minute.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks import smoke
from sphere_jax.cli import run_command
from sphere_jax.geometry import Euclidean, ProjectedEuclidean, TokenSphere, sphere
from sphere_jax.sampling import SOLVERS, advance, initial_state, time_grid

DIM = 32
TIMES = np.linspace(0, 1, 41).astype(np.float32)
INK = {"slerp": "#0b6e4f", "nlerp": "#e08e1b", "shell_linear": "#3366aa", "linear": "#b3252d"}


def axes(title, xlabel, ylabel):
    figure, axis = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return figure, axis


def save(figure, axis, out, name, **legend):
    axis.legend(frameon=False, **legend)
    figure.savefig(out / f"{name}.png", dpi=160)
    plt.close(figure)


def synthetic_pairs(pairs):
    """Tokens of FLUX.2's radii (mean 0.94 sqrt(d), CV 0.20; docs/systems/spherical_flow.md#tensors)
    and Gaussian noise."""
    rng = np.random.default_rng(0)
    radius = 0.94 * np.sqrt(DIM) * (1 + 0.2 * rng.normal(size=(pairs, 1, 1, 1)))
    data = radius * np.asarray(sphere.normalize(rng.normal(size=(pairs, 1, 1, DIM))))
    return data.astype(np.float32), rng.normal(size=data.shape).astype(np.float32)


def walk(space, data, noise):
    """For each time: the norms of z_t in units of sqrt(d), and the radial share of u_t."""

    @jax.jit
    def at(data, noise, t):
        z, u = space.interpolate(space.project(data), space.prior(noise), t)
        norm = sphere.safe_norm(z)
        share = (sphere.dot(z, u)[..., 0] / (norm * sphere.safe_norm(u))) ** 2
        return norm.ravel() / np.sqrt(DIM), share.ravel()

    norms, shares = zip(*(at(data, noise, t) for t in TIMES), strict=True)
    return np.stack(norms), np.stack(shares)


def paths(out, pairs):
    radius, (data, noise) = np.sqrt(DIM), synthetic_pairs(pairs)
    spaces = {
        "linear": Euclidean(),
        "shell_linear": ProjectedEuclidean(radius),
        "slerp": TokenSphere(radius),
        "nlerp": TokenSphere(radius, path="nlerp"),  # drawn last, dashed: it lies on slerp
    }
    walks = {name: walk(space, data, noise) for name, space in spaces.items()}

    figure, axis = axes("Norm along the path", "t (0 data, 1 noise)", "token norm / sqrt(d)")
    for name, (norms, _) in walks.items():
        low, middle, high = np.quantile(norms, [0.05, 0.5, 0.95], axis=1)
        axis.fill_between(TIMES, low, high, color=INK[name], alpha=0.15, lw=0)
        style = "--" if name == "nlerp" else "-"
        axis.plot(TIMES, middle, style, color=INK[name], label=name)
        print(f"norm / sqrt(d) at t = 0, 0.5, 1, {name:12s}: {middle[[0, 20, 40]].round(3)}")
        off = np.max(np.abs(norms - 1))
        if name in ("nlerp", "slerp"):
            print(f"largest radius error, {name}: {off:.1e}")
    save(figure, axis, out, "path_norms", loc="lower left")

    figure, axis = axes("Radial share of the target", "t (0 data, 1 noise)", "rho(t)")
    for name, (_, shares) in walks.items():
        mean = shares.mean(1)
        style = "--" if name == "nlerp" else "-"
        axis.plot(TIMES, mean, style, color=INK[name], label=name)
        print(f"rho at t = 0, 0.1, 0.25, 0.5, {name:12s}: {mean[[0, 4, 10, 20]].round(3)}")
    save(figure, axis, out, "radial_share", loc="upper center")


def angles(out):
    """Relative error of float32 angles, against float64 on the same vectors."""
    theta = np.concatenate([np.logspace(-7, 0, 60), np.pi - np.logspace(0, -7, 60)])
    u, q = np.random.default_rng(0).normal(size=(2, 64, 1, 1024))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    q -= np.sum(u * q, -1, keepdims=True) * u
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    w = np.cos(theta)[:, None] * u + np.sin(theta)[:, None] * q
    u, w = np.broadcast_to(u, w.shape).astype(np.float32), w.astype(np.float32)
    a, b = (x / np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True) for x in (u, w))
    exact = 2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    dot = sphere.dot(u, w)[..., 0]
    ways = {
        "2 atan2(|u-w|, |u+w|)": (sphere.angle(u, w), INK["slerp"]),
        "arccos, clipped at 1 - 1e-7": (jnp.arccos(jnp.clip(dot, -1 + 1e-7, 1 - 1e-7)), "#777777"),
        "arccos, clipped at 1 - 1e-6": (jnp.arccos(jnp.clip(dot, -1 + 1e-6, 1 - 1e-6)), "#b3252d"),
    }
    figure, pair = plt.subplots(1, 2, figsize=(7.6, 3.6), sharey=True, layout="constrained")
    for name, (measured, ink) in ways.items():
        error = np.max(np.abs(np.asarray(measured, np.float64) - exact), axis=0)
        for axis, x, part in zip(
            pair, (theta, np.pi - theta), (slice(60), slice(60, None)), strict=True
        ):
            axis.loglog(x[part], np.maximum(error[part], 1e-12), color=ink, label=name)
        near = [error[np.argmin(np.abs(theta - x))] for x in (1e-5, 1e-3, 0.1, np.pi - 1e-3)]
        shown = ", ".join(f"{e:.1e}" for e in near)
        print(
            f"angle error at 1e-5, 1e-3, 0.1, pi - 1e-3, {name}: {shown}; worst {error.max():.1e}"
        )
    pair[0].set(xlabel="angle (rad)", ylabel="absolute error (rad)", title="near 0")
    pair[1].set(xlabel="pi - angle (rad)", title="near the antipode")
    for axis in pair:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    save(figure, pair[0], out, "angle_error", loc="center left", fontsize="small")

    rounded = np.asarray(jnp.asarray(u, jnp.bfloat16), np.float64)
    rounded /= np.linalg.norm(rounded, axis=-1, keepdims=True)
    turned = 2 * np.arctan2(
        np.linalg.norm(a - rounded, axis=-1), np.linalg.norm(a + rounded, axis=-1)
    )
    print(f"storing a vector in bfloat16 turns it by {turned.mean():.1e} rad")


def bfloat16_drift():
    """Relative norm error after 50 steps whose state and arithmetic have one precision."""
    u, q = jnp.eye(2, 1024)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(1024, 1024)))[0]
    u, q = u @ rotation, q @ rotation
    for dtype in (jnp.bfloat16, jnp.float32):
        z, v = u.astype(dtype), (q * np.pi / 100).astype(dtype)
        h = jnp.asarray(np.pi / 100, dtype)
        for _ in range(50):  # the textbook step, without the renormalisation of sphere.exp
            z, v = (
                jnp.cos(h) * z + jnp.sin(h) / h * v,
                jnp.cos(h) * v - h * jnp.sin(h) * z,
            )
        norm = np.linalg.norm(np.asarray(z, np.float64))
        print(f"norm error of 50 bare steps in {jnp.dtype(dtype).name}: {abs(norm - 1):.1e}")
    z = u
    for _ in range(50):
        z = sphere.exp(z, sphere.tangent(z, q * 0.03))
    print(f"norm error of 50 sphere.exp steps: {abs(np.linalg.norm(np.float64(z)) - 1):.1e}")


def retractions(out):
    """Share of a quarter circle that n Euler steps at the true speed cover."""
    u, w = (x.reshape(1, 1, 1, 2) for x in jnp.eye(2))
    counts = np.array([1, 2, 3, 4, 6, 8, 10, 16, 25, 50])

    def velocity(z, t):
        return jnp.pi / 2 * (sphere.dot(u, z) * w - sphere.dot(w, z) * u)

    figure, axis = axes("A quarter circle in n steps", "steps", "share covered")
    for retraction, ink in (("exp", INK["slerp"]), ("renormalize", INK["linear"])):
        covered = []
        for n in counts:
            z, times = w, jnp.asarray(time_grid(int(n)))
            for t, t_next in zip(times[:-1], times[1:], strict=True):
                z = SOLVERS["euler"](
                    velocity, TokenSphere(1.0, retraction=retraction), z, t, t_next
                )
            covered.append(float(sphere.angle(w, z).squeeze() / (jnp.pi / 2)))
        axis.semilogx(counts, covered, "o-", color=ink, label=retraction)
        shown = {int(n): round(c, 4) for n, c in zip(counts, covered, strict=True)}
        print(f"share of a quarter circle, {retraction}: {shown}")
    save(figure, axis, out, "retractions", loc="lower right")


def orders(out, steps):
    """Error of each solver against a reference of `steps` midpoint steps, and the fitted slopes."""
    rng = np.random.default_rng(0)
    spin, pull = rng.normal(size=(8, 8)) / 2, rng.normal(size=8) / 2
    spin, pull = jnp.asarray(spin - spin.T, jnp.float32), jnp.asarray(pull, jnp.float32)
    start = sphere.normalize(rng.normal(size=(16, 1, 1, 8)))

    def velocity(z, t):
        v = jnp.matmul(z, spin) * (1 + jnp.sin(3 * t)) + jnp.broadcast_to(pull, z.shape)
        return sphere.tangent(z, v)

    def compiled(rule, space):
        @jax.jit
        def run(times, steps):
            def step(i, state):
                return advance(rule, velocity, space, state, times[i], times[i + 1])

            return jax.lax.fori_loop(0, steps, step, initial_state(rule, start))[0]

        return lambda n: run(np.pad(time_grid(n), (0, steps - n)), n)

    exact = compiled(SOLVERS["midpoint"], TokenSphere(1.0))(steps)
    counts = np.array([4, 8, 16, 32, 64])
    figure, axis = axes("Solvers on the sphere", "network evaluations", "error (rad, RMS)")
    inks = dict(zip(SOLVERS, ("#b3252d", "#3366aa", "#0b6e4f", "#e08e1b"), strict=True))
    for name, rule in SOLVERS.items():
        for retraction, style in (("exp", "o-"), ("renormalize", "o--")):
            run = compiled(rule, TokenSphere(1.0, retraction=retraction))
            errors = [
                float(jnp.sqrt(jnp.mean(sphere.angle(run(int(n)), exact) ** 2))) for n in counts
            ]
            slope = -np.polyfit(np.log(counts[2:]), np.log(errors[2:]), 1)[0]
            label = f"{name}, {retraction}: order {slope:.2f}"
            axis.loglog(rule.evaluations * counts, errors, style, color=inks[name], label=label)
            shown = ", ".join(f"{e:.1e}" for e in errors)
            print(f"solver {label}; errors at {counts} steps: {shown}")
    save(figure, axis, out, "solver_order", loc="lower left", fontsize="small")


def main(argv: list[str]) -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the figures")
    flags.add_argument("--pairs", type=int, default=4096, help="of data and noise, for the paths")
    flags.add_argument("--reference", type=int, default=1024, help="steps of the exact trajectory")
    args = smoke.parse(
        flags, argv, lambda: [f"--out={smoke.folder()}", "--pairs=8", "--reference=64"]
    )
    args.out.mkdir(parents=True, exist_ok=True)
    paths(args.out, args.pairs)
    angles(args.out)
    bfloat16_drift()
    retractions(args.out)
    orders(args.out, args.reference)


if __name__ == "__main__":
    run_command(main)
