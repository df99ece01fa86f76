"""Prepares a data set: its latents, its images, or statistics of its latents or its features.

    python -m sphere_jax.prepare latents --config=configs/X.py --out=caches/X
    python -m sphere_jax.main --config=configs/X.py --workdir=runs/X \\
        --config.data.source=cache --config.data.path=caches/X

    python -m sphere_jax.prepare images --config=configs/X.py --out=images/X
    python -m sphere_jax.main --config=configs/X.py --workdir=runs/X \\
        --config.data.source=array_record --config.data.path=images/X

    python -m sphere_jax.prepare statistics --config=configs/X.py --out=weights/X.safetensors
    python -m sphere_jax.main --config=configs/X.py --workdir=runs/X \\
        --config.tokenizer.pretrained_statistics=weights/X.safetensors

    python -m sphere_jax.prepare statistics --features=inception_fid --images=photos/ \\
        --pretrained=weights/inception.safetensors --out=photos.npz
    python -m sphere_jax.evaluate --samples=samples/ --reference=photos.npz --metrics=fid \\
        --pretrained=weights/inception.safetensors

Latents and images resume after an interruption with the same command: finished files are checked
and reused. Statistics start again.
"""

from pathlib import Path

from sphere_jax.cli import (
    Parser,
    add_side_flags,
    choose_action,
    joins_processes,
    parse_with_config,
    run_command,
    side_options,
    user_path,
    weights_files,
)
from sphere_jax.common.flags import whole

EPILOG = {
    "latents": """\
OUT holds ArrayRecord files and an index.json with shapes, statistics and checksums. Training
refuses a cache of another tokenizer, image size, resize or number of classes. Only tokenizers with
weights from files can be cached: kl_vae, tiny_vae, rae, others with config.tokenizer.pretrained.
--config.a.b=v overrides a value of the config.
After an interruption the same command checks finished files and reuses them.
""",
    "images": """\
Every image is padded or resized to config.data.image_size, split, and stored as PNG with its label,
a tf.train.Example per record, in train-*.array_record and heldout-*.array_record.
--config.a.b=v overrides a value of the config.
After an interruption the same command checks finished files and reuses them.
""",
    "statistics": """\
Of the training images, original and mirrored. tiny_vae and kl_vae normalise by them before anything
is projected on a sphere; rae whitens every number of a latent, and its file holds as many means and
variances. A latent cache (--config.data.source=cache) stores its own, so nothing is
encoded. It is normalised as it is read: one cache serves runs with statistics and without.
With --features, those of images in feature networks instead: a reference for sphere_jax.evaluate,
made once. --images takes what its --reference does; --config the images of a config (--split).
--config.a.b=v overrides a value of the config.
""",
}
HOSTS = "On several hosts start the same command on each, with --out on storage that all see.\n"
ACTIONS = {
    "latents": "encodes every image once, original and mirrored",
    "images": "brings every image to size and stores it in record files",
    "statistics": "of every channel of the latents, or of images in feature networks",
}


@joins_processes
def main(argv: list[str]) -> None:
    what = choose_action(argv, __doc__.split("\n\n")[0], ACTIONS)
    if not what:
        return
    flags = Parser(f"{ACTIONS[what].capitalize()}.", f"{EPILOG[what]}\n{HOSTS}", action=what)
    of_features = what == "statistics" and any(a.startswith("--features") for a in argv)
    flags.add_argument(
        "--config", type=user_path, required=not of_features, default="",
        help="a file, or a name in configs/",
    )  # fmt: skip
    if what == "statistics":
        _add_feature_flags(flags)
    target = {"statistics": "FILE"}.get(what, "FOLDER")
    flags.add_argument("--out", type=user_path, required=True, metavar=target, help="to write")
    if what != "statistics":
        flags.add_argument("--shard_size", type=whole(1), default=1024, help="images per file")
    if what == "latents":
        types = ("float16", "bfloat16", "float32")
        flags.add_choice("--dtype", types, default="float16", help="of stored latents")
    if what != "images":
        text = "images encoded at once per device"
        flags.add_argument("--batch", type=whole(1), default=32, help=text)
    if of_features:
        _store_statistics(flags, argv[1:])
        return
    arguments, config = parse_with_config(flags, argv[1:])

    # Slow imports come after the flags, so that --help and wrong flags answer at once.
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.processes import is_main_process, start_processes
    from sphere_jax.runs.latent_caching import encode_data_set
    from sphere_jax.runs.latent_statistics import write_statistics

    if what != "statistics" and config.data.random_crop:
        raise UserError(
            f"prepare {what} writes the centre of every picture, which leaves nothing to crop: "
            "give --config.data.random_crop=(), here and in training, or train from the pictures."
        )
    start_processes()
    out = Path(arguments.out)
    if what == "images":
        _prepare_images(config.data, out, arguments.shard_size)
        return
    if what == "statistics":
        statistics = write_statistics(config, out, arguments.batch)
        if is_main_process():
            print(f"{out}: {statistics['tokens']:,} tokens")
            _print_statistics(statistics)
        return
    size, dtype, batch = arguments.shard_size, arguments.dtype, arguments.batch
    index = encode_data_set(config, out, size, dtype, batch)
    if is_main_process():
        _print_classes(out)
        _print_summary(out, index)


def _add_feature_flags(flags: Parser) -> None:
    flags.add_argument("--features", default="", metavar="NAMES", help="feature networks")
    flags.add_argument("--images", type=user_path, default="", help="images, instead of a config's")
    flags.add_argument("--pretrained", default="", metavar="FILES", help="weights of --features")
    add_side_flags(flags)


def _store_statistics(flags: Parser, argv: list[str]) -> None:
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_parent
    from sphere_jax.common.processes import start_processes
    from sphere_jax.common.progress import log
    from sphere_jax.evaluation.api import store_statistics
    from sphere_jax.runs.sides import data_side, side_of

    arguments = flags.parse_args([a for a in argv if not a.startswith("--config.")])
    if bool(arguments.images) == bool(arguments.config):
        raise UserError("Give --images, or --config for the images of its data.")
    split = arguments.split or "train"
    if arguments.config:
        side = data_side(parse_with_config(flags, argv)[1], split)
    else:
        side = side_of(arguments.images, split)
    if not arguments.out.endswith(".npz"):
        raise UserError(f"--out={arguments.out} must end in .npz.")
    make_parent(arguments.out)
    start_processes()
    protocol = store_statistics(
        side,
        arguments.out,
        arguments.features.split(","),
        weights=weights_files(arguments.pretrained),
        **side_options(arguments),
    )
    outputs = [f"{n}: {', '.join(of['outputs'])}" for n, of in protocol["networks"].items()]
    log(f"{arguments.out}: {protocol['images']['images']:,} images, {'; '.join(outputs)}")


def _prepare_images(data, out: Path, shard_size: int) -> None:
    from sphere_jax.common.progress import log
    from sphere_jax.data.record_writer import write_images

    counts = write_images(data, out, shard_size)
    _print_classes(out)
    log(f"{out}: {counts['train']:,} training and {counts['heldout']:,} held-out images")


def _print_classes(out: Path) -> None:
    from sphere_jax.common.progress import log
    from sphere_jax.data.class_names import read_classes

    if classes := read_classes(out):
        for line in classes.lines():
            log(line)


def _print_summary(out: Path, index: dict) -> None:
    """What was written, and the statistics of the training part."""
    shards = index["shards"]
    train, heldout = (sum(shard["images"] for shard in part) for part in shards.values())
    size = sum(shard["bytes"] for part in shards.values() for shard in part)
    shape = " x ".join(map(str, index["latent_shape"]))
    print(f"{out}: {train:,} training and {heldout:,} held-out images, each also mirrored")
    what = ", means and standard deviations" if index.get("moments") else ""
    print(f"latents {shape} {index['dtype']}{what}, {size / 1e6:,.1f} MB")
    _print_statistics(index["statistics"])


def _print_statistics(s: dict) -> None:
    means, stds = s["channel_mean"], s["channel_std"]
    print(f"channels: means {min(means):.3g} to {max(means):.3g}, "
          f"standard deviations {min(stds):.3g} to {max(stds):.3g}")  # fmt: skip
    if "token_norm_mean" in s:  # not of a packed cache
        print(f"token norms: mean {s['token_norm_mean']:.4g}, "
              f"standard deviation {s['token_norm_std']:.3g}")  # fmt: skip


if __name__ == "__main__":
    run_command(main)
