"""Draws samples from a trained run: a picture, or arrays for other programs.

python -m sphere_jax.sample --workdir=runs/mnist_slerp --num=64 --seed=1 --out=digits.png
"""

from pathlib import Path

from sphere_jax.cli import (
    Parser,
    add_weights_flag,
    run_command,
    sampler_values,
    user_path,
)
from sphere_jax.common.flags import any_method, seed, whole

EPILOG = """\
examples:
  --labels=3                     64 threes            --labels=cat,dog    the two in turn
  --guidance=1                   no guidance, half the cost
  --steps=10 --solver=heun       fewer, better steps (Heun evaluates twice a step)
  --out=samples.npz              arrays `images` uint8 NHWC and `labels` int32

At one seed, sample i starts from bit-identical noise and ends in the same picture (within 1 of 255)
whatever --batch, the number of devices or the mesh.
"""
GRID = 2_500  # most pictures in one file
SHOWN = 10  # classes that are named once they are drawn


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG, samples=any_method)
    flags.add_argument(
        "--workdir", type=user_path, required=True, help="the folder of a finished run"
    )
    flags.add_argument("--out", type=user_path, required=True, help="FILE.png (a grid) or FILE.npz")
    flags.add_argument("--num", type=whole(1), default=64, help="number of samples")
    flags.add_argument("--seed", type=seed, default=0, help="random seed")
    flags.add_argument("--labels", default="", help="classes, say 0,1 or cat,dog; default: all")
    add_weights_flag(flags)
    arguments = flags.parse_sampler(argv)

    import numpy as np

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_parent, write_npz
    from sphere_jax.data.class_names import parse_labels
    from sphere_jax.evaluation.figures import save_grid
    from sphere_jax.runs.drawing import balanced_labels, check_count, draw
    from sphere_jax.runs.loading import load_run

    out = Path(arguments.out)
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"--out={out} must end in .png or .npz.")
    if out.suffix == ".png" and arguments.num > GRID:
        raise UserError(
            f"--num={arguments.num} is more than a .png shows ({GRID:,}); use --out=FILE.npz."
        )
    make_parent(out)
    workdir = Path(arguments.workdir)
    sampler = sampler_values(workdir, arguments.sampler)
    run = load_run(workdir, sampler, weights=arguments.weights)
    if out.suffix == ".png" and not run.tokenizer.decodes:
        raise UserError("This run has latents only and no decoder; use --out=FILE.npz.")
    classes = run.config.data.num_classes
    chosen = parse_labels(arguments.labels, run.classes)
    check_count(run, arguments.num)
    labels = balanced_labels(arguments.num, classes)
    if chosen:
        labels = np.resize(np.array(chosen), max(arguments.num, 0))
    samples = draw(run, labels, arguments.seed)
    if out.suffix == ".npz":
        kind, drawn = ("images", samples.images)
        if samples.images is None:
            kind, drawn = ("latents", samples.latents)
        write_npz(out, {kind: drawn, "labels": samples.labels})
    else:
        columns = classes if not chosen and classes <= 20 else int(np.ceil(np.sqrt(arguments.num)))
        save_grid(samples.images, out, min(columns, len(labels)))
    how = f"{samples.sampler}, NFE {samples.evaluations} per image"
    print(f"{out}: {len(labels)} samples, seed {arguments.seed}, {how}")
    if run.classes.named:
        drawn = list(dict.fromkeys(labels.tolist()))
        few = ", ".join(f"{label} = {run.classes.shown(label)}" for label in drawn[:SHOWN])
        print(f"labels {few}{', ...' if len(drawn) > SHOWN else ''}")


if __name__ == "__main__":
    run_command(main)
