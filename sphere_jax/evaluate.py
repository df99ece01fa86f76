"""Scores images against others: two folders, files or stored statistics, or a trained run.

    python -m sphere_jax.evaluate --samples=samples/ --reference=photos/ --metrics=fid,kid \\
        --pretrained=weights/inception.safetensors
    python -m sphere_jax.evaluate --samples=mine.npz --reference=imagenet256_adm --fetch \\
        --metrics=fid --pretrained=weights/inception.safetensors --against=theirs.json
    python -m sphere_jax.evaluate --samples=decoded/ --reference=photos/ --pairs \\
        --metrics=psnr,ssim,lpips_alex,rfid --pretrained=lpips.safetensors,inception.safetensors
    python -m sphere_jax.evaluate --workdir=runs/X --num=50000 --metrics=fid \\
        --pretrained=weights/inception.safetensors

    python -m sphere_jax.evaluate --workdir=runs/mnist_slerp --num=1000 --seed=1 --guidance=1.5
    python -m sphere_jax.evaluate --workdir=runs/mnist_slerp --samples=mine.npz
    python -m sphere_jax.evaluate --samples=mine.npz --reference=data.npz
    python -m sphere_jax.evaluate --workdir=runs/mnist_slerp --sweep=decode_radius=3,4,5 \\
        --sweep=guidance=1,1.5,2 --out=sweep.json

Without --metrics, scores are those of a run: in the features of a small classifier trained on the
reference's training split, which need no download (its Frechet distance is not an FID), or in
published --features.
"""

from pathlib import Path

from sphere_jax.cli import (
    Parser,
    add_side_flags,
    add_weights_flag,
    check_sampler_names,
    joins_processes,
    run_command,
    sampler_values,
    side_options,
    user_path,
    weights_files,
)
from sphere_jax.common.flags import any_method, seed, whole

EPILOG = """\
with --metrics, a side is a folder of pictures (nested or not), an .npz (`images` or `arr_0`, and
`mu`, `sigma`), ArrayRecord files, a run or a config (its data), or the name of a reference
(docs/evaluation.md); --pretrained takes the weights of every network, separated by commas.
without, files of images are .npz with `images` uint8 NHWC and, for class agreement, `labels`;
a reference needs both, and may hold `test_images`, `test_labels` as its held-out part.
a sweep prints a table, one row a combination. --out is written, and its curves beside it, after
every point; the same command resumes after the points already scored.
"""


@joins_processes
def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG, samples=any_method)
    flags.add_argument("--workdir", type=user_path, default="", help="the folder of a finished run")
    flags.add_argument("--samples", type=user_path, default="", help="images to score")
    flags.add_argument(
        "--reference", type=user_path, default="", help="what to score against, without a run"
    )
    flags.add_argument(
        "--metrics", default="", metavar="NAMES", help="fid,kid,...: files of evaluation/measures/"
    )
    flags.add_argument(
        "--pairs", action="store_true", help="--metrics of reconstructions, paired by file name: "
        "psnr, ssim, ssim_reflected, ms_ssim, ms_ssim_reflected, lpips_alex, lpips_vgg, rfid",
    )  # fmt: skip
    flags.add_argument("--num", type=whole(1), help="samples to draw (default 1000)")
    flags.add_argument("--seed", type=seed, help="random seed of the samples (default 0)")
    flags.add_argument(
        "--labels", help="of the samples: balanced (default), random, or classes in turn, say 0,1"
    )
    flags.add_argument(
        "--features", default="", help="inception_fid, efficientnet_lite0, ...; see convert --list"
    )
    flags.add_argument("--pretrained", type=user_path, default="", help="weights of --features")
    flags.add_argument(
        "--data_path", type=user_path, default="", help="images behind a latent cache, if moved"
    )
    flags.add_argument("--data_source", default="", help="of --data_path: cifar10, folder, ...")
    add_weights_flag(flags)
    add_side_flags(flags)
    flags.add_argument(
        "--sweep", action="append", metavar="KEY=VALUES", help="score every value; may be repeated"
    )
    flags.add_argument(
        "--out", type=user_path, default="", help="FILE.json for the scores and their protocol"
    )
    flags.add_argument(
        "--against", type=user_path, default="", metavar="OTHER.json",
        help="scores of an earlier --out, to compare these with",
    )  # fmt: skip
    arguments = flags.parse_sampler(argv)

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import make_parent

    if arguments.out and not arguments.out.endswith(".json"):
        raise UserError(f"--out={arguments.out} must end in .json.")
    if arguments.out:
        make_parent(arguments.out)
    if arguments.pairs:
        _pairs(arguments)
    elif arguments.metrics:
        _two_sides(arguments)
    else:
        _of_run(arguments)


def _two_sides(arguments) -> None:
    """Scores by --metrics: of any images, or of samples of a run, against any others."""
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.processes import is_main_process, start_processes
    from sphere_jax.evaluation.api import evaluate
    from sphere_jax.evaluation.measures.base import names_in
    from sphere_jax.evaluation.score_tables import lines
    from sphere_jax.runs.sides import side_of
    from sphere_jax.weights.stored import is_run_folder

    for name in ("features", "sweep", "data_path", "data_source"):
        if getattr(arguments, name):
            raise UserError(f"--{name} belongs to scores of a run without --metrics.")
    if not (arguments.workdir or arguments.samples):
        raise UserError("Give --samples, or --workdir of a run.")
    other = _read_scores(arguments.against)
    start_processes()
    samples, reference = arguments.samples, arguments.reference or arguments.workdir
    if not samples or is_run_folder(samples):
        samples = _samples_of_run(arguments, samples or arguments.workdir)
    else:
        _check_nothing_is_drawn(arguments)
    found = evaluate(
        samples,
        side_of(reference, arguments.split or "train") if reference else None,
        names_in(arguments.metrics),
        weights=weights_files(arguments.pretrained),
        **side_options(arguments),
    )
    if is_main_process():
        _show(arguments, found, lines(found), other)


def _pairs(arguments) -> None:
    """Reconstruction metrics of the images of two sides that have the same names."""
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.processes import is_main_process, start_processes
    from sphere_jax.evaluation.measures.base import names_in
    from sphere_jax.evaluation.reconstructions import evaluate_pairs, lines
    from sphere_jax.runs.sides import side_of

    if not (arguments.samples and arguments.reference):
        raise UserError("--pairs needs --samples, the reconstructions, and --reference.")
    for name in ("workdir", "features", "sweep", "data_path", "data_source", "skip_bad", "fetch"):
        if getattr(arguments, name):
            raise UserError(f"--{name} has no meaning for --pairs of two sides of images.")
    _check_nothing_is_drawn(arguments)
    other = _read_scores(arguments.against)
    start_processes()
    found = evaluate_pairs(
        arguments.samples,
        side_of(arguments.reference, arguments.split or "train"),
        names_in(arguments.metrics) or ["psnr", "ssim"],
        weights=weights_files(arguments.pretrained),
        **side_options(arguments),
    )
    if is_main_process():
        _show(arguments, found, lines(found), other)


def _samples_of_run(arguments, workdir: str):
    """A side of samples that are drawn while they are scored."""
    from sphere_jax.runs.labels import chosen_labels
    from sphere_jax.runs.loading import load_run
    from sphere_jax.runs.sides import drawn_side

    values = sampler_values(Path(workdir), arguments.sampler)
    run = load_run(workdir, values, weights=arguments.weights)
    num = 1000 if arguments.num is None else arguments.num
    seed, rounding = arguments.seed or 0, arguments.rounding or "nearest"
    labels, how = chosen_labels(arguments.labels or "", run.classes, num, seed)
    return drawn_side(run, labels, seed, how, rounding)


def _check_nothing_is_drawn(arguments) -> None:
    """Raises UserError for flags of drawing beside a file of samples."""
    from sphere_jax.common.errors import UserError

    check_sampler_names(arguments.sampler)
    drawing = {name: getattr(arguments, name) for name in ("num", "seed", "labels")}
    drawing |= {"weights": arguments.weights or None}
    drawing |= arguments.sampler | {"sweep": arguments.sweep}
    for name in (name for name, value in drawing.items() if value is not None):
        raise UserError(f"--{name} draws samples of a run; give --workdir without --samples.")


def _read_scores(path: str) -> dict | None:
    """Scores that --against names. Raises UserError for another file."""
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import read_json

    if not path:
        return None
    found = read_json(Path(path), "give a file that --out wrote")
    if found is None or not {"metrics", "protocol"} <= found.keys():
        raise UserError(f"{path} holds no scores; give a file that --out wrote.")
    return found


def _show(arguments, found: dict, lines: list[str], other: dict | None) -> None:
    """Prints and stores scores; beside those of --against if they may be compared.

    Raises UserError, after both, if they may not: a line for each setting that differs.
    """
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.files import write_json
    from sphere_jax.evaluation.stamp import differences

    for line in lines:
        print(line)
    if arguments.out:
        write_json(arguments.out, found)
    if other is None:
        return
    print(f"\nagainst {arguments.against}")
    different = differences(found["protocol"], other["protocol"])
    for line in different:
        print(f"  {line}")
    if different:
        raise UserError(
            f"These scores cannot be compared with those of {arguments.against}: {len(different)} "
            "settings differ, listed above; score both in the same way."
        )
    for key in (key for key in found["metrics"] if key in other["metrics"]):
        here, there = found["metrics"][key], other["metrics"][key]
        print(f"  {key:<40} {here:10.4f} here {there:10.4f} there {here - there:+10.4f}")


def _of_run(arguments) -> None:
    """Scores of a run, or of a file against a run's or a file's images with labels."""
    from sphere_jax.common.errors import UserError
    from sphere_jax.common.temporary import temporary_folder
    from sphere_jax.evaluation.protocol import protocol
    from sphere_jax.evaluation.sample_files import read_samples
    from sphere_jax.evaluation.score_tables import describe, reading, remark_of
    from sphere_jax.runs.drawing import Drawer, check_count
    from sphere_jax.runs.labels import chosen_labels
    from sphere_jax.runs.loading import bare_run, load_run
    from sphere_jax.runs.reference import reference_of
    from sphere_jax.runs.scoring import generation_of, labels_of, score_images
    from sphere_jax.studies.sweeping import swept_guidance

    if side_options(arguments) or arguments.split:
        name = next(iter([*side_options(arguments), "split"])).replace(
            "batch_size", "feature_batch"
        )
        raise UserError(f"--{name} needs --metrics: which of fid, kid, ... to compute.")
    if bool(arguments.workdir) == bool(arguments.reference):
        raise UserError("Give --workdir of a run, or --samples with --reference.")
    if arguments.reference and not arguments.samples:
        raise UserError("--reference needs --samples, the file to score against it.")
    if arguments.samples:
        _check_nothing_is_drawn(arguments)
    for name in ("samples", "reference"):
        given = getattr(arguments, name)
        if given and not given.endswith(".npz") and not Path(given).is_file():
            raise UserError(
                f"--{name}={given} needs --metrics, say --metrics=fid; without, it is an .npz of "
                "images and labels."
            )
    if arguments.sweep and arguments.labels:
        raise UserError("--labels does not go with --sweep, whose labels are balanced.")
    other = _read_scores(arguments.against)
    for name in ("data_path", "data_source"):
        if arguments.reference and getattr(arguments, name):
            raise UserError(f"--{name} is of a run's latent cache; --reference has its images.")
    if arguments.pretrained and not arguments.features and arguments.reference:
        raise UserError("--pretrained has the weights of published --features; give both.")
    arguments.num = 1000 if arguments.num is None else arguments.num
    arguments.seed = arguments.seed or 0
    given = {
        name: getattr(arguments, name)
        for name in ("features", "pretrained", "data_source", "data_path")
    }
    evaluation = {key: value for key, value in given.items() if value}
    with temporary_folder() as temporary:
        if arguments.workdir:
            workdir = Path(arguments.workdir)
            values = sampler_values(workdir, arguments.sampler)
            if values.get("auto_guidance") and arguments.sweep and "guidance" not in values:
                values |= {"guidance": swept_guidance(arguments.sweep)}
            run = load_run(workdir, values, evaluation, data=True, weights=arguments.weights)
        else:
            run = bare_run(arguments.reference, temporary, evaluation)
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
            given = (arguments.labels or "", run.classes, arguments.num, arguments.seed)
            labels, how = chosen_labels(*given)
            drawer = Drawer(run, arguments.seed)
            samples = drawer.draw(labels, resumes="evaluate")
            if samples.images is None:
                raise UserError("This run has latents only and no decoder; nothing to score here.")
            images, labels = samples.images, labels_of(run, samples)
            generation = generation_of(run, samples.sampler, arguments.seed, how)
        scored = score_images(reference, images, labels, run.config.evaluation.neighbours)
        if samples is not None:
            drawer.used("evaluate")
        name = arguments.reference or run.config.source.images_behind(run.config).source
        stamp = protocol(
            reference, name, scored.samples, run.config.evaluation.neighbours, generation
        )
    lines = [f"{_drawn(arguments, len(images), samples)}; {_against(reference, name)}"]
    remark = remark_of(stamp)
    for key, value in scored.metrics.items():
        (label, _), better = describe(key), reading(key, remark)
        real = scored.real_data[key]
        lines.append(f"{label:<70} {value:9.4f}   real data {real:9.4f}   better: {better}")
    scores = {"metrics": scored.metrics, "real_data": scored.real_data, "protocol": stamp}
    _show(arguments, scores, lines, other)


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
