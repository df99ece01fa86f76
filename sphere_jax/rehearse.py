"""Compiles the programs of a run for a pod that is not there, and says what they need and cost.

    python -m sphere_jax.rehearse --config=configs/imagenet_slerp.py --topology=v5e:4x4

Needs `pip install libtpu` for TPUs, and nothing for --topology=cpu:8. Nothing is run.
"""

import argparse
from pathlib import Path

from sphere_jax.cli import Parser, parse_with_config, run_command, user_path
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_parent
from sphere_jax.config.options import Config

EPILOG = """\
--config.a.b=value overrides a value of the config: --config.mesh.fsdp=16, say.
--only=NAME compiles one program: train flow, sample or score. Large networks take minutes each.
--page=F.md keeps the numbers in the folder rehearsals beside F.md and writes F.md of all that are
there; without --config and --topology it does only that.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("--config", type=user_path, default="", help="a file, or a name in configs/")
    flags.add_argument("--topology", default="", help="v5e:4x4, v5p:2x2x4, v6e:16x16 or cpu:8, say")
    flags.add_argument("--only", default="", metavar="NAME", help="of one program; else all")
    flags.add_argument(
        "--page", type=user_path, default="", metavar="F.md", help="keep the numbers, and write all"
    )
    plain = [a for a in argv if not a.startswith("--config.")]
    arguments = flags.parse_args(plain)
    if arguments.page:
        make_parent(arguments.page)
    if arguments.config and arguments.topology:
        _rehearse(arguments, parse_with_config(flags, argv)[1], argv)
    elif arguments.config or arguments.topology or not arguments.page or plain != argv:
        raise UserError("Give --config and --topology, say v5e:4x4 or cpu:8.")
    if arguments.page:
        from sphere_jax.rehearsal.kept import write_page  # slow: after the flags

        write_page(Path(arguments.page))


def _rehearse(arguments: argparse.Namespace, config: Config, argv: list[str]) -> None:
    # Slow imports come after the flags, so that --help and wrong flags answer at once.
    from sphere_jax.rehearsal.chips import devices_of

    devices, chip = devices_of(arguments.topology)

    from sphere_jax.distribution.mesh import configured_mesh
    from sphere_jax.rehearsal.estimate import estimate
    from sphere_jax.rehearsal.kept import keep, label_of, made_with
    from sphere_jax.rehearsal.programs import programs_of
    from sphere_jax.rehearsal.scaling_page import lines_of

    mesh, names = configured_mesh(config.mesh, devices), []
    made = made_with()  # before the minutes in which the checkout may change
    for rehearsed in programs_of(config, mesh):
        names.append(rehearsed.name)
        if arguments.only not in ("", rehearsed.name):
            continue
        found = estimate(rehearsed, arguments.topology, mesh, chip)
        print("\n".join(lines_of(found)), flush=True)
        if arguments.page:
            keep(Path(arguments.page), label_of(arguments.config, argv), made, found)
    if arguments.only and arguments.only not in names:
        raise UserError(f"--only={arguments.only} is none of this config's: {', '.join(names)}.")


if __name__ == "__main__":
    run_command(main)
