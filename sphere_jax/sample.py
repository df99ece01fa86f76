"""Draws samples from a trained run: a picture, or arrays for other programs.

python -m sphere_jax.sample --workdir=runs/mnist_slerp --num=64 --seed=1 --out=digits.png
"""

import zlib
from pathlib import Path

from sphere_jax.cli import (
    Parser,
    add_weights_flag,
    run_command,
    sampler_values,
    user_path,
)
from sphere_jax.common.flags import any_method, seed, whole
from sphere_jax.data.image_choices import ROUNDINGS

EPILOG = """\
examples:
  --labels=3                     64 threes            --labels=cat,dog    the two in turn
  --guidance=1                   no guidance, half the cost
  --steps=10 --solver=heun       fewer, better steps (Heun evaluates twice a step)
  --labels=random                independent labels, a function of the seed
  --out=samples.npz              arrays `images` uint8 NHWC and `labels` int32
  --out=s.npz --layout=adm       `arr_0` and `arr_1`, for ADM's evaluator
  --weights=raw                  not the averaged weights; best: of config.evaluation.keep_best

At one seed, sample i starts from bit-identical noise and ends in the same picture (within 1 of 255)
whatever --batch, the number of devices or the mesh.
"""
LAYOUTS = ("sphere_jax", "adm")
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
    flags.add_argument(
        "--labels", default="balanced", help="or random; or classes in turn, say 0,1 or cat,dog"
    )
    flags.add_choice(
        "--layout", LAYOUTS, default="sphere_jax", help="of an .npz; adm: arr_0, arr_1"
    )
    flags.add_choice("--rounding", ROUNDINGS, default="nearest", help="of pixels to uint8")
    add_weights_flag(flags)
    arguments = flags.parse_sampler(argv)

    import numpy as np

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_parent, write_npz
    from sphere_jax.evaluation.figures import save_grid
    from sphere_jax.runs.drawing import Drawer, check_count
    from sphere_jax.runs.labels import BALANCED, chosen_labels
    from sphere_jax.runs.loading import load_run

    out = Path(arguments.out)
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"--out={out} must end in .png or .npz.")
    if out.suffix == ".png" and arguments.num > GRID:
        raise UserError(
            f"--num={arguments.num} is more than a .png shows ({GRID:,}); use --out=FILE.npz."
        )
    if out.suffix == ".png" and arguments.layout != "sphere_jax":
        raise UserError(f"--layout={arguments.layout} is of arrays; use --out=FILE.npz.")
    make_parent(out)
    workdir = Path(arguments.workdir)
    sampler = sampler_values(workdir, arguments.sampler)
    run = load_run(workdir, sampler, weights=arguments.weights)
    if out.suffix == ".png" and not run.tokenizer.decodes:
        raise UserError("This run has latents only and no decoder; use --out=FILE.npz.")
    if arguments.layout == "adm" and not run.tokenizer.decodes:
        raise UserError("--layout=adm is of images; this run has latents only and no decoder.")
    classes = run.config.data.num_classes
    check_count(run, arguments.num)
    labels, chosen = chosen_labels(arguments.labels, run.classes, arguments.num, arguments.seed)
    name = f"sample-{zlib.crc32(str(out.absolute()).encode()):08x}"
    drawer = Drawer(run, arguments.seed, arguments.rounding)
    samples = drawer.draw(labels, resumes=name)
    if out.suffix == ".npz":
        write_npz(out, _arrays(samples, arguments.layout))
    else:
        wide = chosen == BALANCED and classes <= 20
        columns = classes if wide else int(np.ceil(np.sqrt(arguments.num)))
        save_grid(samples.images, out, min(columns, len(labels)))
    drawer.used(name)
    how = f"{samples.sampler}, NFE {samples.evaluations} per image"
    print(f"{out}: {len(labels)} samples, seed {arguments.seed}, labels {chosen}, {how}")
    if run.classes.named:
        drawn = list(dict.fromkeys(labels.tolist()))
        few = ", ".join(f"{label} = {run.classes.shown(label)}" for label in drawn[:SHOWN])
        print(f"labels {few}{', ...' if len(drawn) > SHOWN else ''}")


def _arrays(samples, layout: str) -> dict:
    """What an .npz holds, in our layout or as ADM's scripts write it: RGB, labels int64."""
    import numpy as np

    if samples.images is None:
        return {"latents": samples.latents, "labels": samples.labels}
    if layout == "adm":
        shape = (*samples.images.shape[:-1], 3)
        return {
            "arr_0": np.broadcast_to(samples.images, shape),
            "arr_1": samples.labels.astype(np.int64),
        }
    return {"images": samples.images, "labels": samples.labels}


if __name__ == "__main__":
    run_command(main)
