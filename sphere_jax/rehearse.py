"""Compiles the programs of a run for a pod that is not there, and says what they need and cost.

    python -m sphere_jax.rehearse --config=configs/imagenet_slerp.py --topology=v5e:4x4

Needs `pip install libtpu` for TPUs, and nothing for --topology=cpu:8. Nothing is run.
"""

from pathlib import Path

from sphere_jax.cli import Parser, parse_with_config, run_command, user_path

EPILOG = """\
--config.a.b=value overrides a value of the config: --config.mesh.fsdp=16, say.
--only=NAME compiles one program: train flow, sample or score. Large networks take minutes each.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument(
        "--config", type=user_path, required=True, help="a file, or a name in configs/"
    )
    flags.add_argument(
        "--topology", required=True, help="v5e:4x4, v5p:2x2x4, v6e:16x16 or cpu:8, say"
    )
    flags.add_argument("--only", default="", metavar="NAME", help="of one program; else all")
    flags.add_argument(
        "--results", type=user_path, default="", metavar="D", help="folder to keep the numbers in"
    )
    flags.add_argument(
        "--page", type=user_path, default="", metavar="F.md", help="write all numbers of --results"
    )
    arguments, config = parse_with_config(flags, argv)

    # Slow imports come after the flags, so that --help and wrong flags answer at once.
    from sphere_jax.common.errors import UserError
    from sphere_jax.rehearsal.chips import devices_of

    if arguments.page and not arguments.results:
        raise UserError("--page needs --results: the folder whose numbers it writes.")
    devices, chip = devices_of(arguments.topology)

    from sphere_jax.distribution.mesh import make_mesh
    from sphere_jax.rehearsal.estimate import estimate
    from sphere_jax.rehearsal.kept import keep, label_of, write_page
    from sphere_jax.rehearsal.programs import programs_of
    from sphere_jax.rehearsal.scaling_page import lines_of

    mesh, names = make_mesh(config.mesh.data, config.mesh.fsdp, devices), []
    for rehearsed in programs_of(config, mesh):
        names.append(rehearsed.name)
        if arguments.only not in ("", rehearsed.name):
            continue
        found = estimate(rehearsed, arguments.topology, mesh, chip)
        print("\n".join(lines_of(found)), flush=True)
        if arguments.results:
            keep(Path(arguments.results), label_of(arguments.config, argv), found)
    if arguments.only and arguments.only not in names:
        raise UserError(f"--only={arguments.only} is none of this config's: {', '.join(names)}.")
    if arguments.page:
        write_page(Path(arguments.page), Path(arguments.results))


if __name__ == "__main__":
    run_command(main)
