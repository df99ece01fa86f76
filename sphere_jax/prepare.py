"""Data made ready before training: the latents of a whole data set, encoded once.

    python -m sphere_jax.prepare latents --config=configs/X.py --out=caches/X
    python -m sphere_jax.main --config=configs/X.py --workdir=runs/X \\
        --config.data.source=cache --config.data.path=caches/X

Run the same command again after an interruption: finished files are checked and kept.
"""

from pathlib import Path

from sphere_jax.cli import parse_with_config, parser, run_command

EPILOG = """\
Every image is encoded as it is and mirrored. The folder holds ArrayRecord files and an index.json
with shapes, statistics and checksums. Training refuses a cache of another tokenizer, image size,
resize or number of classes. Only published tokenizers (kl_vae, tiny_vae, rae) can be cached.

On several hosts start the same command on each (see launch/), with --out on storage that all see.
exit codes: 0 done, 2 something to mend (one sentence says what).
"""


def main(argv: list[str]) -> None:
    flags = parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("what", choices=("latents",), help="what to prepare")
    flags.add_argument("--config", required=True, help="a file in configs/")
    flags.add_argument("--out", required=True, metavar="FOLDER", help="made, or gone on with")
    flags.add_argument("--shard_size", type=int, default=1024, help="images a file (default 1024)")
    flags.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), default="float16", help="as stored"
    )
    flags.add_argument("--batch", type=int, default=32, help="images a device at a time (32)")
    arguments, config = parse_with_config(flags, argv)

    # Imports that need seconds come after the flags, so that --help and mistakes answer at once.
    from sphere_jax.distribution.start import is_main_process, start_processes
    from sphere_jax.encoding import encode_data_set
    from sphere_jax.errors import UserError

    if min(arguments.shard_size, arguments.batch) < 1:
        raise UserError("--shard_size and --batch must be at least 1.")
    start_processes()
    out, size, dtype = Path(arguments.out), arguments.shard_size, arguments.dtype
    index = encode_data_set(config, out, size, dtype, arguments.batch)
    if is_main_process():
        _tell(out, index)


def _tell(out: Path, index: dict) -> None:
    """What was written, and the statistics of the training part."""
    s, shards = index["statistics"], index["shards"]
    train, heldout = (sum(shard["images"] for shard in part) for part in shards.values())
    size = sum(shard["bytes"] for part in shards.values() for shard in part)
    shape = " x ".join(map(str, index["latent_shape"]))
    means, stds = s["channel_mean"], s["channel_std"]
    print(f"{out}: {train:,} training and {heldout:,} held-out images, each also mirrored")
    print(f"latents {shape} {index['dtype']}, {size / 1e6:,.1f} MB")
    print(f"channels: means {min(means):.3g} to {max(means):.3g}, "
          f"standard deviations {min(stds):.3g} to {max(stds):.3g}")  # fmt: skip
    print(f"token norms: mean {s['token_norm_mean']:.4g}, "
          f"standard deviation {s['token_norm_std']:.3g}")  # fmt: skip


if __name__ == "__main__":
    run_command(main)
