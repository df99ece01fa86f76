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

from sphere_jax.cli import parser, run_command
from sphere_jax.config.config_files import load_config

EPILOG = """\
Of --config only the data and a published tokenizer are read; of --workdir, the folder of a finished
run, the tokenizer that it trained or took. --config.a.b=v overrides a value of --config.
Images are held-out ones. Without --lpips, or without --features, these distances are left out.
exit codes: 0 done, 2 something to mend (one sentence says what).
"""


def main(argv: list[str]) -> None:
    flags = parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("--config", default="", help="a config file")
    flags.add_argument("--workdir", default="", help="the folder of a finished run")
    flags.add_argument("--num", type=int, default=1024, help="images at most (default 1024)")
    flags.add_argument("--seed", type=int, default=0, help="of images, neighbours and noise")
    flags.add_argument("--batch", type=int, default=32, help="images at a time (default 32)")
    flags.add_argument("--lpips", default="", metavar="FILE", help="weights of LPIPS, either kind")
    flags.add_argument("--features", default="", help="efficientnet_lite0, dinov2_vitb14_reg, ...")
    flags.add_argument("--pretrained", default="", metavar="FILE", help="weights of --features")
    flags.add_argument(
        "--data_path", default="", help="images behind a run's latent cache, if moved"
    )
    flags.add_argument("--data_source", default="", help="of --data_path: cifar10, folder, ...")
    flags.add_argument("--out", required=True, help="folder to write")
    overrides = [a for a in argv if a.startswith("--config.")]
    arguments = flags.parse_args([a for a in argv if a not in overrides])

    import jax

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_folder
    from sphere_jax.runs.image_data import image_data
    from sphere_jax.studies.probing.distances import Comparison
    from sphere_jax.studies.probing.measure import Probe
    from sphere_jax.studies.probing.probe_page import write
    from sphere_jax.studies.probing.swap import choose

    if bool(arguments.config) == bool(arguments.workdir):
        raise UserError("Give --config=FILE or --workdir of a finished run.")
    if overrides and arguments.workdir:
        raise UserError(f"{overrides[0]} goes with --config; a run keeps its own.")
    if arguments.config and (arguments.data_path or arguments.data_source):
        raise UserError("--data_path and --data_source go with --workdir; --config.data says both.")
    if bool(arguments.features) != bool(arguments.pretrained):
        raise UserError("--features and --pretrained, its weights, go together.")
    for name, least in (("num", 2), ("batch", 1), ("seed", 0)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name}={getattr(arguments, name)} must be at least {least}.")
    out, started = Path(arguments.out), time.monotonic()
    make_folder(out)

    config, mesh, tokenizer, params, split = _open(arguments, overrides)
    images, labels = choose(split.heldout, arguments.num, arguments.seed)
    networks = arguments.lpips, arguments.features, arguments.pretrained
    compare = Comparison.load(*networks, tokenizer.image_shape, mesh, arguments.batch)
    probed = Probe(tokenizer, params, compare, arguments.seed, _say)(images, labels)

    data = image_data(config)
    protocol = {
        "tokenizer": dataclasses.asdict(config.tokenizer),
        "latents": tokenizer.latent_shape,
        "data": f"{data.source} {data.path}",
        "data fingerprint": split.heldout.fingerprint,
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
    """`(config, mesh, tokenizer, its parameters, data)`."""
    from sphere_jax.common.errors import UserError
    from sphere_jax.data.sources import load
    from sphere_jax.distribution.mesh import make_mesh
    from sphere_jax.runs.building import build_tokenizer
    from sphere_jax.runs.image_data import images_of
    from sphere_jax.runs.loading import load_run
    from sphere_jax.tokenizers import Pretrained

    if arguments.workdir:
        images = {"data_path": arguments.data_path, "data_source": arguments.data_source}
        run = load_run(Path(arguments.workdir), data=True, evaluation=images)
        config, mesh, params, split = run.config, run.mesh, run.artifacts, run.split
        tokenizer = build_tokenizer(config)
        if config.data.source == "cache":  # whose runs need no encoder, and may have none
            params = _published(config, tokenizer, mesh) | params
    else:
        config, mesh = load_config(arguments.config, overrides), make_mesh()
        tokenizer = build_tokenizer(config)
        if not isinstance(tokenizer, Pretrained):
            raise UserError(
                f"config.tokenizer.name='{config.tokenizer.name}' has no published weights; train "
                "it and give the run as --workdir."
            )
        params = _published(config, tokenizer, mesh)
        split = load(config.data)
    if config.data.source == "latents":
        raise UserError("config.data.source='latents' has no images to probe with.")
    split = images_of(config, split)  # those behind a latent cache
    if tokenizer.latent_shape[-1] < 2:
        raise UserError("A token of one channel has no direction; nothing to probe here.")
    return config, mesh, tokenizer, {part: params[part] for part in tokenizer.parts}, split


def _published(config, tokenizer, mesh):
    """The parameters of a published tokenizer, from its files onto the mesh."""
    from sphere_jax.distribution.mesh import put_global, tree_shardings
    from sphere_jax.tokenizers.pretrained import load_pretrained

    params = load_pretrained(tokenizer, config.tokenizer)
    return put_global(mesh, params, tree_shardings(mesh, params))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
