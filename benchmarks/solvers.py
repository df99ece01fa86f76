"""Error of each solver at few steps, against steps and network evaluations.

    python -m benchmarks.solvers --workdir=runs/mnist_slerp

All start from the same noise; the reference is 1,000 midpoint steps of the same network. The
error is the root mean square, over samples and tokens, of the geodesic distance of the latents, in
units of their radius (radians on a sphere; sqrt(d) where the space is Euclidean).
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks import smoke
from sphere_jax.cli import Parser, run_command
from sphere_jax.geometry.spaces import GlobalSphere, ProjectedEuclidean, TokenSphere
from sphere_jax.nn.compilation import quick_products
from sphere_jax.runs.drawing import balanced_labels
from sphere_jax.runs.loading import load_run
from sphere_jax.sampling import Sampler, sample, sample_noise

STEPS = (1, 2, 4, 8, 16, 50)
MARKS = {
    "euler": "o-",
    "euler, renormalise": "s--",
    "midpoint": "^-",
    "heun": "v-",
    "multistep": "D-",
}


def main(argv: list[str]) -> None:
    options = Parser(__doc__.splitlines()[0])
    options.add_argument("--workdir", required=True, help="the folder of a finished flow run")
    options.add_argument("--num", type=int, default=64, help="samples (default 64)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--guidance", type=float, default=1.0, help="1, the default, is off")
    options.add_argument("--steps", type=int, nargs="+", default=STEPS)
    options.add_argument(
        "--reference", type=int, default=1000, help="midpoint steps (default 1000)"
    )
    options.add_argument("--plot", type=Path, default=Path("docs/images/solver_error.png"))
    args = smoke.parse(options, argv, smoke_flags)

    run = load_run(Path(args.workdir))
    method, parameters = run.generator, run.artifacts["network"]
    shape, steps = method.tokenizer.latent_shape, sorted(args.steps)
    labels = jnp.asarray(balanced_labels(args.num, method.num_classes))
    noise = sample_noise(jax.random.key(args.seed), jnp.arange(args.num), shape)

    def latents(space, settings):
        guidance = dataclasses.replace(method.sampler.guidance, scale=args.guidance, auto="")
        settings = dataclasses.replace(
            settings, shift=method.sampler.shift, t_end=method.sampler.t_end, guidance=guidance
        )

        @partial(jax.jit, compiler_options=quick_products())
        def draw(parameters, noise):
            network = partial(method.network.apply, parameters)
            return space.project(
                sample(network, space, noise, labels, method.num_classes, settings)
            )

        return draw(parameters, noise), settings.evaluations

    space = method.space
    if space.spherical:
        space = dataclasses.replace(space, retraction="exp")
    config = run.config
    print(
        f"{config.space.path}, {config.space.sphere} sphere, {config.data.source}, "
        f"{config.stage(config.generator).steps} training steps; {args.num} samples, seed "
        f"{args.seed}, guidance {args.guidance:g}; reference: {args.reference} midpoint steps\n"
    )
    print("| solver | " + " | ".join(f"{n} steps" for n in steps) + " | NFE a step |")
    print("| --- |" + " --- |" * (len(steps) + 1), flush=True)
    exact, _ = latents(space, Sampler("midpoint", args.reference))
    rows = {}
    for name, (solver, where) in contenders(space).items():
        rows[name] = []
        for count in steps:
            z, nfe = latents(where, Sampler(solver, count))
            error = jnp.sqrt(jnp.mean(space.distance(z, exact) ** 2)) / radius_of(space, shape)
            rows[name].append((count, nfe, float(error)))
        errors = " | ".join(f"{error:.2e}" for _, _, error in rows[name])
        print(f"| {name} | {errors} | {nfe // count} |", flush=True)
    draw_errors(rows, args.plot)


def smoke_flags() -> list[str]:
    plot = smoke.folder() / "solver_error.png"
    sizes = ["--num=2", "--steps", "1", "2", "--reference=4"]
    return [f"--workdir={smoke.trained_run()}", f"--plot={plot}", *sizes]


def contenders(space) -> dict:
    """(solver, its space) by name."""
    named = {"euler": ("euler", space)}
    if space.spherical:
        renormalised = dataclasses.replace(space, retraction="renormalize")
        named["euler, renormalise"] = ("euler", renormalised)
    return named | {name: (name, space) for name in ("midpoint", "heun", "multistep")}


def radius_of(space, shape) -> float:
    """Of the spheres on which `space.distance` measures."""
    match space:
        case TokenSphere(radius=radius):
            return radius
        case ProjectedEuclidean(radius=float(radius)):
            return radius
        case GlobalSphere():
            return float(np.sqrt(np.prod(shape)))
        case _:
            return float(np.sqrt(shape[-1]))


def draw_errors(rows, path: Path):
    """Error against steps, and against network evaluations."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for panel, axis, label in zip(panels, (0, 1), ("steps", "network evaluations"), strict=True):
        for name, points in rows.items():
            panel.loglog([p[axis] for p in points], [p[2] for p in points], MARKS[name], label=name)
        panel.set(xlabel=label, title=f"Error against {label}")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("distance to the end of the flow, in radii (RMS)")
    panels[0].legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    run_command(main)
