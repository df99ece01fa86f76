"""Prepares a data set for training: its latents, its images, or statistics of its latents.

    python -m sphere_jax.prepare latents --config=configs/X.py --out=caches/X
    python -m sphere_jax.main --config=configs/X.py --workdir=runs/X \\
        --config.data.source=cache --config.data.path=caches/X

    python -m sphere_jax.prepare images --config=configs/X.py --out=images/X
    python -m sphere_jax.main --config=configs/X.py --workdir=runs/X \\
        --config.data.source=array_record --config.data.path=images/X

    python -m sphere_jax.prepare statistics --config=configs/X.py --out=weights/X.safetensors
    python -m sphere_jax.main --config=configs/X.py --workdir=runs/X \\
        --config.tokenizer.pretrained_statistics=weights/X.safetensors

Latents and images resume after an interruption with the same command: finished files are checked
and reused. Statistics start again.
"""

from pathlib import Path

from sphere_jax.cli import Parser, parse_with_config, run_command, user_path

EPILOG = """\
latents: every image encoded, original and mirrored. The folder holds ArrayRecord files and an
index.json with shapes, statistics and checksums. Training refuses a cache of another tokenizer,
image size, resize or number of classes. Only published tokenizers (kl_vae, tiny_vae, rae) can be
cached.

images: every image padded or resized to config.data.image_size, split, and stored as PNG with its
label, a tf.train.Example per record, in train-*.array_record and heldout-*.array_record.

statistics: mean and standard deviation of every channel over the training images, original and
mirrored. tiny_vae and kl_vae normalise by them before anything is projected on a sphere. A latent
cache (--config.data.source=cache) stores its own, so nothing is encoded. It is normalised as it is
read: one cache serves runs with statistics and without.

On several hosts start the same command on each (see launch/), with --out on storage that all see.
"""
DEFAULTS = {"shard_size": 1024, "dtype": "float16", "batch": 32}
UNUSED = {"latents": (), "images": ("dtype", "batch"), "statistics": ("shard_size", "dtype")}


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("what", choices=("latents", "images", "statistics"), help="what to prepare")
    flags.add_argument("--config", type=user_path, required=True, help="a file in configs/")
    flags.add_argument(
        "--out", type=user_path, required=True, metavar="PATH", help="a folder (statistics: a file)"
    )
    flags.add_argument("--shard_size", type=int, help="images per file (default 1024)")
    flags.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        help="of stored latents (default float16)",
    )
    flags.add_argument("--batch", type=int, help="images encoded at once per device (default 32)")
    arguments, config = parse_with_config(flags, argv)

    # Slow imports come after the flags, so that --help and wrong flags answer at once.
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.processes import is_main_process, start_processes
    from sphere_jax.runs.latent_caching import encode_data_set
    from sphere_jax.runs.latent_statistics import write_statistics

    given = {name: getattr(arguments, name) for name in DEFAULTS}
    for name in UNUSED[arguments.what]:
        if given[name] is not None:
            raise UserError(f"--{name} has no effect on 'prepare {arguments.what}': leave it out.")
    size, dtype, batch = (DEFAULTS[k] if v is None else v for k, v in given.items())
    if min(size, batch) < 1:
        raise UserError("--shard_size and --batch must be at least 1.")
    start_processes()
    out = Path(arguments.out)
    if arguments.what == "images":
        _prepare_images(config.data, out, size)
        return
    if arguments.what == "statistics":
        statistics = write_statistics(config, out, batch)
        if is_main_process():
            print(f"{out}: {statistics['tokens']:,} tokens")
            _print_statistics(statistics)
        return
    index = encode_data_set(config, out, size, dtype, batch)
    if is_main_process():
        _print_classes(out)
        _print_summary(out, index)


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
