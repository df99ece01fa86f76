"""Probes whether a tokenizer's decoder reads the direction of a token or its length.

    python -m sphere_jax.probe --config=configs/probe_flowers.py --config.data.path=flowers.npz \
        --config.tokenizer.pretrained=weights/taef2.safetensors --lpips=weights/lpips.safetensors \
        --features=efficientnet_lite0 --pretrained=weights/efficientnet.safetensors --out=probe
    python -m sphere_jax.probe --workdir=runs/mnist_slerp --out=probe

Writes OUT/probe.html, which needs no other file, and OUT/probe.json, and prints the verdicts.
"""

import dataclasses
import sys
import time
from pathlib import Path

from sphere_jax.cli import Parser, run_command, user_path
from sphere_jax.common.flags import seed, whole
from sphere_jax.config.config_files import load_config

EPILOG = """\
Of --config only the data and a published tokenizer are used; of --workdir, a finished run, the
tokenizer that it trained or loaded. --config.a.b=v overrides a value of --config.
Images are held-out ones. Distances without weights (--lpips, --features) are left out.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("--config", type=user_path, default="", help="a file, or a name in configs/")
    flags.add_argument("--workdir", type=user_path, default="", help="the folder of a finished run")
    flags.add_argument("--num", type=whole(2), default=1024, help="images at most")
    flags.add_argument("--seed", type=seed, default=0, help="seed of images, neighbours and noise")
    flags.add_argument("--batch", type=whole(1), default=32, help="images at a time")
    flags.add_argument(
        "--lpips", type=user_path, default="", metavar="FILE", help="weights of LPIPS, either kind"
    )
    flags.add_argument("--features", default="", help="efficientnet_lite0, dinov2_vitb14_reg, ...")
    flags.add_argument(
        "--pretrained", type=user_path, default="", metavar="FILE", help="weights of --features"
    )
    flags.add_argument(
        "--data_path",
        type=user_path,
        default="",
        help="images behind a run's latent cache, if moved",
    )
    flags.add_argument("--data_source", default="", help="of --data_path: cifar10, folder, ...")
    flags.add_argument("--out", type=user_path, required=True, help="folder to write")
    overrides = [a for a in argv if a.startswith("--config.")]
    arguments = flags.parse_args([a for a in argv if a not in overrides])

    import jax

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_folder
    from sphere_jax.studies.probing.distances import Comparison
    from sphere_jax.studies.probing.measure import Probe
    from sphere_jax.studies.probing.probe_page import write
    from sphere_jax.studies.probing.swap import choose

    if bool(arguments.config) == bool(arguments.workdir):
        raise UserError("Give --config=FILE or --workdir of a finished run.")
    if overrides and arguments.workdir:
        raise UserError(f"{overrides[0]} goes with --config; a run has its own config.")
    if arguments.config and (arguments.data_path or arguments.data_source):
        raise UserError("--data_path and --data_source go with --workdir; else set --config.data.")
    if bool(arguments.features) != bool(arguments.pretrained):
        raise UserError("--features and --pretrained, its weights, go together.")
    out, started = Path(arguments.out), time.monotonic()
    make_folder(out)

    run = _open(arguments, overrides)
    config, tokenizer, heldout = run.config, run.tokenizer, run.images.heldout
    images, labels = choose(heldout, arguments.num, arguments.seed)  # raises for too few
    params = _params(run, arguments.workdir != "")
    networks = arguments.lpips, arguments.features, arguments.pretrained
    compare = Comparison.load(*networks, tokenizer.image_shape, run.mesh, arguments.batch)
    probed = Probe(tokenizer, params, compare, arguments.seed, _log)(images, labels)

    data = config.source.images_behind(config)
    protocol = {
        "tokenizer": dataclasses.asdict(config.tokenizer),
        "latents": tokenizer.latent_shape,
        "data": f"{data.source} {data.path}",
        "data fingerprint": heldout.fingerprint,
        "images": f"{len(images)} held-out images of {'x'.join(map(str, tokenizer.image_shape))}",
        "seed": arguments.seed,
        **compare.networks,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "seconds": round(time.monotonic() - started),
    }
    for claim in write(out, probed, protocol):
        print(f"{claim.shown:<8} {claim.statement} [{claim.source}]\n         {claim.found}")
    for what, network in compare.networks.items():
        print(f"{what}: {network}")
    print(f"{out / 'probe.html'}, {out / 'probe.json'}: {time.monotonic() - started:.0f} s")


def _open(arguments, overrides):
    """The run of --workdir or --config, without weights."""
    from sphere_jax.common.errors import UserError
    from sphere_jax.data.class_names import with_classes_counted
    from sphere_jax.distribution.mesh import make_mesh
    from sphere_jax.runs.loading import unloaded_run
    from sphere_jax.runs.run import Run

    if arguments.workdir:
        images = {"data_path": arguments.data_path, "data_source": arguments.data_source}
        run = unloaded_run(Path(arguments.workdir), evaluation=images)
    else:
        config = with_classes_counted(load_config(arguments.config, overrides))
        run = Run(config, Path(arguments.out), make_mesh())
        if config.trains_tokenizer:
            raise UserError(
                f"config.tokenizer.name='{config.tokenizer.name}' has no published weights; train "
                "it and give the run as --workdir."
            )
    tokenizer = run.tokenizer
    if not tokenizer.decodes:
        source = run.config.data.source
        raise UserError(f"config.data.source='{source}' has no images to probe with.")
    if tokenizer.latent_shape[-1] < 2:
        raise UserError("A token of one channel has no direction; give another tokenizer.")
    return run


def _params(run, trained: bool) -> dict:
    """The tokenizer's parameters, of a finished run if `trained`."""
    from sphere_jax.runs.finished import check_data, load_stages
    from sphere_jax.runs.network_files import load_tokenizer

    if trained:
        load_stages(run)
        check_data(run)
    tokenizer, found = run.tokenizer, dict(run.artifacts)
    if not set(tokenizer.parts) <= found.keys():  # a config, or a run on cached latents
        run.add_artifacts(load_tokenizer(tokenizer, run.config.tokenizer))
    params = run.artifacts | found
    return {part: params[part] for part in tokenizer.parts}


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
