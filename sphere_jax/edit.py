"""Edits images with a trained Sphere Encoder, and shows the result as a labelled picture.

python -m sphere_jax.edit reconstruct --workdir=runs/mnist_sphere_encoder --images a.png --out=r.png
"""

from pathlib import Path

from sphere_jax.cli import (
    Parser,
    run_command,
    sampler_values,
    user_path,
)

EPILOG = """\
actions (arXiv 2602.15030; docs/systems/sphere_encoder.md#editing):
  reconstruct   originals above their reconstructions, null label
  interpolate   from the first image to the second in --columns pictures; with four images a square.
                Without --images between random points of the sphere. --labels=3,5 goes from one
                class to the other at the same time
  crossover     two images stitched, then --steps rounds: shared and fresh noise, fixed and
                decreasing strength
  manipulate    each image turned into each class of --labels; --direction=FILE uses another
                image's latent instead of noise

examples:
  interpolate --workdir=W --seed=3 --labels=1,7 --out=i.png
  crossover --workdir=W --images a.png b.png --stitch=diagonal --swap --out=c.png
  manipulate --workdir=W --images a.png --labels=2,5,8 --strength=0.25 --out=m.png
"""
STEPS = {"interpolate": 4, "crossover": 10, "manipulate": 5}  # published
STRENGTH = {"interpolate": 1.0, "crossover": 0.25, "manipulate": 0.25}  # published


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG, samples=True)
    flags.add_argument("action", choices=("reconstruct", *STEPS))
    flags.add_argument(
        "--workdir", type=user_path, required=True, help="the folder of a finished run"
    )
    flags.add_argument(
        "--images", type=user_path, nargs="+", default=[], metavar="FILE", help="any size, any mode"
    )
    flags.add_argument("--out", type=user_path, required=True, help="FILE.png")
    flags.add_argument("--labels", default="", help="classes, say 0,1,2 or cat,dog")
    flags.add_argument("--seed", type=int, default=0, help="random seed of the noise (default 0)")
    flags.add_argument("--path", choices=("lerp", "slerp"), default="lerp", help="interpolate")
    flags.add_argument("--columns", type=int, default=16, help="interpolate (default 16)")
    flags.add_argument(
        "--stitch", choices=("vertical", "horizontal", "diagonal"), default="vertical"
    )
    flags.add_argument("--swap", action="store_true", help="crossover: swap the two images")
    flags.add_argument(
        "--direction", type=user_path, default="", metavar="FILE", help="manipulate: an image"
    )
    arguments = flags.parse_sampler(argv)

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_parent, write_bytes
    from sphere_jax.config.reading import read_config
    from sphere_jax.data.class_names import parse_labels
    from sphere_jax.data.pictures import read_files
    from sphere_jax.evaluation.figures import labelled_rows
    from sphere_jax.runs.loading import load_run, stored_config
    from sphere_jax.studies import editing

    out, action, seed = Path(arguments.out), arguments.action, arguments.seed
    if out.suffix != ".png":
        raise UserError(f"--out={out} must end in .png.")
    if arguments.columns < 2:
        raise UserError(f"--columns={arguments.columns} must be at least 2.")
    make_parent(out)
    workdir = Path(arguments.workdir)
    editing.check_edits(read_config(stored_config(workdir), stored=True), workdir)
    published = {"steps": STEPS.get(action, 1), "strength": STRENGTH.get(action, 1.0)}
    run = load_run(workdir, published | sampler_values(workdir, arguments.sampler))
    method, labels = editing.editor(run), parse_labels(arguments.labels, run.classes)

    def read(paths):
        return read_files(paths, run.config.data) if paths else None

    images = read(arguments.images)
    if action != "interpolate" and images is None:
        raise UserError(f"{action} needs --images.")
    if action == "reconstruct":
        rows = editing.reconstruct(run, images)
    elif action == "interpolate":
        path, columns = arguments.path, arguments.columns
        rows = editing.interpolate(run, images, labels, columns, path, seed)
    elif action == "crossover":
        rows = editing.crossover(run, images, arguments.stitch, arguments.swap, seed)
    else:
        direction = read([arguments.direction] if arguments.direction else [])
        rows = editing.manipulate(run, images, labels, seed, direction)
    write_bytes(out, labelled_rows(rows))
    print(f"{out}: {action}" + ("" if action == "reconstruct" else f", {method.sampler}"))


if __name__ == "__main__":
    run_command(main)
