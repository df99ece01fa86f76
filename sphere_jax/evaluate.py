"""Scores a trained run, or any file of images, against a data set.

    python -m sphere_jax.evaluate --workdir=runs/mnist_slerp --num=1000 --seed=1 --guidance=1.5
    python -m sphere_jax.evaluate --workdir=runs/mnist_slerp --samples=mine.npz
    python -m sphere_jax.evaluate --samples=mine.npz --reference=data.npz

    python -m sphere_jax.evaluate --workdir=runs/mnist_slerp --features=inception_fid \
        --pretrained=weights/inception.safetensors
    python -m sphere_jax.evaluate --workdir=runs/mnist_slerp --sweep=decode_radius=3,4,5 \
        --sweep=guidance=1,1.5,2 --out=sweep.json

By default it needs no download: the features are those of a small classifier trained on the
reference's training split, so its Frechet distance is not an FID.
"""

import tempfile
from pathlib import Path

from sphere_jax.cli import (
    Parser,
    add_weights_flag,
    check_sampler_names,
    run_command,
    sampler_values,
    user_path,
)
from sphere_jax.common.flags import any_method, seed, whole

EPILOG = """\
files of images are .npz with `images` uint8 NHWC and, for class agreement, `labels`;
a reference needs both, and may hold `test_images`, `test_labels` as its held-out part.
a sweep prints a table, one row a combination. --out is written, and its curves beside it, after
every point; the same command resumes after the points already scored.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG, samples=any_method)
    flags.add_argument("--workdir", type=user_path, default="", help="the folder of a finished run")
    flags.add_argument("--samples", type=user_path, default="", help="FILE.npz of images to score")
    flags.add_argument(
        "--reference", type=user_path, default="", help="FILE.npz to score against, without a run"
    )
    flags.add_argument("--num", type=whole(1), help="samples to draw (default 1000)")
    flags.add_argument("--seed", type=seed, help="random seed of the samples (default 0)")
    flags.add_argument(
        "--features", default="", help="inception_fid, efficientnet_lite0, ...; see convert --list"
    )
    flags.add_argument("--pretrained", type=user_path, default="", help="weights of --features")
    flags.add_argument(
        "--data_path", type=user_path, default="", help="images behind a latent cache, if moved"
    )
    flags.add_argument("--data_source", default="", help="of --data_path: cifar10, folder, ...")
    add_weights_flag(flags)
    flags.add_argument(
        "--sweep", action="append", metavar="KEY=VALUES", help="score every value; may be repeated"
    )
    flags.add_argument(
        "--out", type=user_path, default="", help="FILE.json for the scores and their protocol"
    )
    arguments = flags.parse_sampler(argv)

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_parent, write_json
    from sphere_jax.evaluation.protocol import protocol
    from sphere_jax.evaluation.sample_files import read_samples
    from sphere_jax.evaluation.score_tables import describe, reading, remark_of
    from sphere_jax.runs.drawing import balanced_labels, check_count, draw
    from sphere_jax.runs.loading import bare_run, load_run
    from sphere_jax.runs.reference import reference_of
    from sphere_jax.runs.scoring import generation_of, labels_of, score_images
    from sphere_jax.studies.sweeping import swept_guidance

    if bool(arguments.workdir) == bool(arguments.reference):
        raise UserError("Give --workdir of a run, or --samples with --reference.")
    if arguments.reference and not arguments.samples:
        raise UserError("--reference needs --samples, the file to score against it.")
    drawing = {"num": arguments.num, "seed": arguments.seed, "weights": arguments.weights or None}
    if arguments.samples:
        check_sampler_names(arguments.sampler)
    drawing |= arguments.sampler | {"sweep": arguments.sweep}
    unused = [name for name, value in drawing.items() if value is not None and arguments.samples]
    if unused:
        raise UserError(f"--{unused[0]} draws samples of a run; give --workdir without --samples.")
    for name in ("data_path", "data_source"):
        if arguments.reference and getattr(arguments, name):
            raise UserError(f"--{name} is of a run's latent cache; --reference has its images.")
    if arguments.pretrained and not arguments.features and arguments.reference:
        raise UserError("--pretrained has the weights of published --features; give both.")
    arguments.num = 1000 if arguments.num is None else arguments.num
    arguments.seed = arguments.seed or 0
    if arguments.out and not arguments.out.endswith(".json"):
        raise UserError(f"--out={arguments.out} must end in .json.")
    if arguments.out:
        make_parent(arguments.out)
    given = {
        name: getattr(arguments, name)
        for name in ("features", "pretrained", "data_source", "data_path")
    }
    evaluation = {key: value for key, value in given.items() if value}
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.workdir:
            workdir = Path(arguments.workdir)
            values = sampler_values(workdir, arguments.sampler)
            if values.get("auto_guidance") and arguments.sweep and "guidance" not in values:
                values |= {"guidance": swept_guidance(arguments.sweep)}
            run = load_run(workdir, values, evaluation, data=True, weights=arguments.weights)
        else:
            run = bare_run(arguments.reference, Path(temporary), evaluation)
        if arguments.sweep:
            _sweep(run, arguments)
            return
        images = labels = generation = samples = None
        if arguments.samples:
            data = run.config.data
            shape = (data.image_size, data.image_size, data.channels)
            images, labels = read_samples(arguments.samples, shape, run.classes)
        reference = reference_of(run)  # raises before sampling
        if images is None:
            check_count(run, arguments.num)
            labels = balanced_labels(arguments.num, run.config.data.num_classes)
            samples = draw(run, labels, arguments.seed)
            if samples.images is None:
                raise UserError("This run has latents only and no decoder; nothing to score here.")
            images, labels = samples.images, labels_of(run, samples)
            generation = generation_of(run, samples.sampler, arguments.seed)
        scored = score_images(reference, images, labels, run.config.evaluation.neighbours)
        name = arguments.reference or run.config.source.images_behind(run.config).source
        stamp = protocol(
            reference, name, scored.samples, run.config.evaluation.neighbours, generation
        )
    print(f"{_drawn(arguments, len(images), samples)}; {_against(reference, name)}")
    remark = remark_of(stamp)
    for key, value in scored.metrics.items():
        (label, _), better = describe(key), reading(key, remark)
        real = scored.real_data[key]
        print(f"{label:<70} {value:9.4f}   real data {real:9.4f}   better: {better}")
    if arguments.out:
        scores = {"metrics": scored.metrics, "real_data": scored.real_data}
        write_json(arguments.out, scores | {"protocol": stamp})


def _drawn(arguments, count: int, samples) -> str:
    """What was scored: how many samples, and how they were drawn."""
    if arguments.samples:
        return f"{count:,} samples of {arguments.samples}"
    weights = f", weights of {arguments.weights}" if arguments.weights else ""
    how = f"seed {arguments.seed}, {samples.sampler}, NFE {samples.evaluations}{weights}"
    return f"{count:,} samples of {arguments.workdir}, {how}"


def _against(reference, name: str) -> str:
    return f"against {len(reference.split.heldout):,} held-out images of {name}"


def _sweep(run, arguments) -> None:
    from sphere_jax.common.files import read_json, write_bytes, write_json
    from sphere_jax.studies.sweeping import curves, sweep, sweep_configs, table

    points, out = sweep_configs(run.config, arguments.sweep), Path(arguments.out)

    def save(swept):
        if arguments.out:
            write_json(out, swept)
            drawn = curves(swept)
            if drawn:
                write_bytes(out.with_suffix(".png"), drawn)

    before = read_json(out) if arguments.out else None
    swept = sweep(run, points, arguments.num, arguments.seed, before, save)
    save(swept)  # an earlier sweep may have another order
    print(f"{arguments.num:,} samples a row, seed {arguments.seed}\n\n{table(swept)}")


if __name__ == "__main__":
    run_command(main)
