"""Checks hosts, devices, versions, data and write access before a run starts on them.

    python -m sphere_jax.preflight --hosts=4 --config=configs/X.py --workdir=/shared/run

The scripts of launch/ run it on every host with the flags of the command that follows.
"""

from pathlib import Path

from sphere_jax.cli import Parser, joins_processes, run_command, user_path
from sphere_jax.common.flags import whole

FILES = (".json", ".npz", ".safetensors")  # of commands whose --out is one
EPILOG = """\
Takes the flags of the command that follows: --config.a.b=value counts, and the others are ignored.
"""


@joins_processes
def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument(
        "--hosts", type=whole(1), default=0, help="that must be there; 0: any number"
    )
    flags.add_argument(
        "--devices_per_host", type=whole(1), default=0, help="that each must see; 0: any"
    )
    flags.add_choice("--platform", ("cpu", "gpu", "tpu"), help="of the devices")
    flags.add_argument(
        "--wait",
        type=whole(1),
        metavar="SECONDS",
        help="for hosts that are not there (default $SPHERE_JAX_WAIT or 30)",
    )
    flags.add_argument("--config", type=user_path, default="", help="of what will run")
    for name in ("--workdir", "--out"):
        text = "the folder, or the file, it will write to"
        flags.add_argument(name, type=user_path, default="", help=text)
    arguments, rest = flags.parse_known_args(argv)
    overrides = [text for text in rest if text.startswith("--config.")]

    # Slow imports come after the flags, so that --help and wrong flags answer at once.
    from sphere_jax.common.processes import start_processes
    from sphere_jax.common.versions import check_cuda_plugins
    from sphere_jax.runs.host_checks import Expected, check_hosts

    check_cuda_plugins()  # first, because JAX may not start with two
    start_processes(arguments.wait)
    given = arguments.workdir or arguments.out
    folder = Path(given) if given else None
    if folder and (folder.suffix in FILES or folder.is_file()):
        folder = folder.parent
    check_hosts(
        Expected(arguments.hosts, arguments.devices_per_host, arguments.platform or ""),
        arguments.config,
        overrides,
        folder,
    )


if __name__ == "__main__":
    run_command(main)
