"""Edits images with a trained spherical autoencoder, and shows the result as a labelled picture.

python -m sphere_jax.edit reconstruct --workdir=runs/mnist_sphere_encoder --images a.png --out=r.png
"""

import argparse
from pathlib import Path

from sphere_jax.cli import Parser, choose_action, run_command, sampler_values, user_path
from sphere_jax.common.errors import UserError
from sphere_jax.common.flags import seed, whole

ACTIONS = {
    "reconstruct": "originals above their reconstructions, without classes",
    "interpolate": "pictures between two images, or between random points of the sphere",
    "crossover": "two images stitched together, then refined",
    "manipulate": "each image turned into each class of --labels",
}
EPILOG = {
    "reconstruct": """\
example:
  reconstruct --workdir=W --images a.png b.png --out=r.png
""",
    "interpolate": """\
From the first image to the second in --columns pictures; with four images a square of them. Without
--images between random points of the sphere. --labels=3,5 goes from one class to the other at the
same time.

example:
  interpolate --workdir=W --seed=3 --labels=1,7 --out=i.png
""",
    "crossover": """\
Two images are stitched, then refined in --steps rounds: one row each for shared and fresh noise, at
fixed and decreasing strength.

example:
  crossover --workdir=W --images a.png b.png --stitch=diagonal --swap --out=c.png
""",
    "manipulate": """\
example:
  manipulate --workdir=W --images a.png --labels=2,5,8 --strength=0.25 --out=m.png
""",
}
SOURCE = "\ndocs/systems/sphere_encoder.md#editing, docs/systems/flow_sphere.md#editing\n"
VARIED = ("schedule", "share_noise")  # by every crossover
COLUMNS = 100  # most of a picture


def main(argv: list[str]) -> None:
    action = choose_action(argv, __doc__.split("\n\n")[0], ACTIONS)
    if not action:
        return
    arguments = _parse(action, argv[1:])

    from sphere_jax.common.files import make_parent, write_bytes
    from sphere_jax.config.reading import read_config
    from sphere_jax.data.class_names import parse_labels
    from sphere_jax.data.pictures import read_files
    from sphere_jax.evaluation.figures import labelled_rows
    from sphere_jax.runs.loading import load_run, stored_config
    from sphere_jax.studies import editing

    out, workdir = Path(arguments.out), Path(arguments.workdir)
    if out.suffix != ".png":
        raise UserError(f"--out={out} must end in .png.")
    make_parent(out)
    config = read_config(stored_config(workdir), stored=True)
    editing.check_edits(config, workdir, action)
    given = editing.defaults(config, action) | sampler_values(workdir, arguments.sampler)
    if arguments.sampler and not any(samples(action)(config.method(n)) for n in config.stages):
        raise UserError(f"{action} takes no --{min(arguments.sampler)} of {workdir}; leave it out.")
    run = load_run(workdir, given)
    method, labels = editing.editor(run), parse_labels(arguments.labels, run.classes)

    def read(paths):
        return read_files(paths, run.config.data) if paths else None

    images = read(arguments.images)
    if action == "reconstruct":
        rows = editing.reconstruct(run, images, arguments.seed)
    elif action == "interpolate":
        path, columns = arguments.path, arguments.columns
        rows = editing.interpolate(run, images, labels, columns, path, arguments.seed)
    elif action == "crossover":
        rows = editing.crossover(run, images, arguments.stitch, arguments.swap, arguments.seed)
    else:
        direction = read([arguments.direction] if arguments.direction else [])
        rows = editing.manipulate(run, images, labels, arguments.seed, direction)
    write_bytes(out, labelled_rows(rows))
    print(f"{out}: {action}" + (f", {method.sampler}" if samples(action)(method) else ""))


def samples(action: str):
    """Whether an action uses the sampler of a method that it edits with."""
    return lambda method: method.edits.get(action) is not None


def _parse(action: str, argv: list[str]):
    """The arguments of one action. Raises UserError for flags that it does not have."""
    about = f"{ACTIONS[action].capitalize()}."
    flags = Parser(
        about,
        EPILOG[action] + SOURCE,
        samples(action),
        action=action,
        published=lambda method: method.edits[action],
    )
    flags.add_argument("--workdir", type=user_path, required=True, help="of a finished run")
    flags.add_argument(
        "--images", type=user_path, nargs="+", default=[], metavar="FILE",
        help="any size, any mode", required=action != "interpolate",
    )  # fmt: skip
    flags.add_argument("--out", type=user_path, required=True, help="FILE.png")
    flags.add_argument("--seed", type=seed, default=0, help="random seed of the noise")
    if action in ("interpolate", "manipulate"):
        classes, needed = "classes, say 0,1,2 or cat,dog", action == "manipulate"
        flags.add_argument("--labels", default="", help=classes, required=needed)
    if action == "interpolate":
        flags.add_choice("--path", ("lerp", "slerp"), default="lerp", help="between two points")
        pictures = "pictures between two points"
        flags.add_argument("--columns", type=whole(2, COLUMNS), default=16, help=pictures)
    if action == "crossover":
        seams = ("vertical", "horizontal", "diagonal")
        flags.add_choice("--stitch", seams, default="vertical", help="the seam")
        flags.add_argument("--swap", action="store_true", help="swap the two images")
    if action == "manipulate":
        flags.add_argument(
            "--direction", type=user_path, default="", metavar="FILE",
            help="an image whose latent takes the place of the noise",
        )  # fmt: skip
    arguments = flags.parse_sampler(argv)
    for name in VARIED if action == "crossover" else ():
        if name in arguments.sampler:
            raise UserError(f"crossover shows every --{name}; leave it out.")
    return argparse.Namespace(**{"labels": "", "direction": "", **vars(arguments)})


if __name__ == "__main__":
    run_command(main)
