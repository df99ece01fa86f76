"""The evaluator against pytorch-fid, SciPy and torch-fidelity, in interleaved rounds.

    pip install -r requirements-parity.txt && pip install --no-deps -r requirements-originals.txt
    python -m benchmarks.evaluate --parts features --rounds 5
    python -m benchmarks.evaluate --parts command --images 10000 --rounds 1

Parts: `features`, images through Inception; `frechet`, the distance of two Gaussians against
scipy.linalg.sqrtm; `precision_recall` of two sets; `command`, a FID of two folders of pictures from
start to end, reading and compiling included. Both sides have the same random weights and the
results are compared. Where a package is not installed, ours is timed alone.
"""

import argparse
import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import rounds, smoke
from benchmarks.networks import inception, published, randomise
from benchmarks.originals import from_tests
from sphere_jax.cli import run_command
from sphere_jax.common import plugins
from sphere_jax.evaluation import evaluate
from sphere_jax.evaluation.frechet import frechet_distance
from sphere_jax.evaluation.neighbours import precision_recall
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import write_weights
from sphere_jax.weights.tensors import convert

SMOKE = ["--network=efficientnet_lite0", "--images=4", "--batch=2", "--length=16", "--points=40"]
SMOKE += ["--side=16", "--rounds=1", "--seconds=0"]
PYTORCH_FID = "inception_fid"  # the network that pytorch-fid has, too
SQRTM = "scipy sqrtm"
FEW = 64  # dimensions of features


def main(argv: list[str]) -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"features": features, "frechet": frechet, "command": command}
    parts["precision_recall"] = precision_and_recall
    flags.add_argument("--parts", nargs="+", default=list(parts), choices=list(parts))
    flags.add_argument("--network", default=PYTORCH_FID, help="of evaluation/features")
    flags.add_argument("--images", type=int, default=1000, help="pictures a folder of `command`")
    flags.add_argument("--side", type=int, default=32, help="of images, in pixels")
    flags.add_argument("--batch", type=int, default=50)
    flags.add_argument("--length", type=int, default=2048, help="of features")
    flags.add_argument("--points", type=int, default=10_000, help="of each set")
    rounds.add_flags(flags, rounds=3)
    args = smoke.parse(flags, argv, lambda: SMOKE)
    clock = rounds.start(args)
    for part in args.parts:
        parts[part](args, clock)


def features(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """uint8 to features, one batch at a time."""
    rng = np.random.default_rng(args.seed)
    images = rng.integers(0, 256, (args.batch, args.side, args.side, 3), np.uint8)
    weights, original = random_weights(args)
    network = plugins.find("evaluation.features", "FEATURES", args.network, "--network")
    loaded = network.load(weights)
    contenders = {"sphere_jax": lambda: np.asarray(loaded.batch(images)["features"])}
    if original:
        import torch

        x = torch.from_numpy(images).movedim(-1, 1).contiguous().float() / 255

        def theirs():
            with torch.no_grad():
                return original(x)[0][..., 0, 0].numpy()

        contenders["pytorch-fid"] = theirs
    title = f"{args.network}, {args.batch} images of {args.side} px at once, images/s"
    show(title, contenders, args, clock, args.batch)


def frechet(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Of covariances as features have them: a few large eigenvalues and many small ones."""
    import scipy.linalg

    rng, length = np.random.default_rng(args.seed), args.length
    scales = np.exp(-6 * np.arange(length) / length)
    moments = []
    for shift in (0.0, 0.1):
        rows = rng.standard_normal((3 * length, length)) * scales + shift
        moments += [rows.mean(0), np.cov(rows, rowvar=False)]
    mu1, sigma1, mu2, sigma2 = moments

    def theirs():  # as pytorch-fid, clean-fid and ADM's script have it
        root = scipy.linalg.sqrtm(sigma1 @ sigma2).real
        shift = mu1 - mu2
        return shift @ shift + np.trace(sigma1) + np.trace(sigma2) - 2 * np.trace(root)

    contenders = {"sphere_jax": lambda: frechet_distance(*moments), SQRTM: theirs}
    title = f"Fréchet distance, {length} features, distances/s"
    show(title, contenders, args, clock, warm_up=False)


def precision_and_recall(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """k = 3, of two sets that overlap in part: positive, and of few dimensions, as Inception's."""
    rng = np.random.default_rng(args.seed)
    mixing = 0.05 * rng.standard_normal((FEW, args.length), np.float32)

    def draw(size: float) -> np.ndarray:
        noise = 0.1 * rng.standard_normal((args.points, args.length), np.float32)
        return np.maximum(
            size * rng.standard_normal((args.points, FEW), np.float32) @ mixing + noise, 0
        )

    real, generated = draw(1.0), draw(1.05)
    ours = lambda: list(precision_recall(real, generated, 3).values())  # noqa: E731
    contenders = {"sphere_jax": ours}
    with without("torch-fidelity"):
        import_packages()
        import torch
        from torch_fidelity.metric_prc import calculate_precision_recall_full

        sets = torch.from_numpy(generated), torch.from_numpy(real)
        contenders["torch-fidelity"] = lambda: calculate_precision_recall_full(*sets)
    title = f"precision and recall, {args.points} x {args.length}, pairs of sets/s"
    show(title, contenders, args, clock, warm_up=False)


def command(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Two folders of PNG files to a number. Each call compiles anew."""
    rng, folders = np.random.default_rng(args.seed), []
    for name in ("samples", "reference"):
        folders.append(smoke.folder() / f"{name}_{args.side}_{args.images}")
        folders[-1].mkdir()
        blocks = rng.integers(0, 256, (args.images, 8, 8, 3), np.uint8)
        for k, block in enumerate(blocks):  # smooth pictures, with the sizes of real files
            image = Image.fromarray(block).resize((args.side, args.side), Image.Resampling.BICUBIC)
            image.save(folders[-1] / f"{k:05d}.png")
    weights, original = random_weights(args)

    def ours():
        jax.clear_caches()
        with contextlib.redirect_stdout(io.StringIO()):
            found = evaluate(
                *folders,
                (f"frechet_distance:network={args.network}",),
                weights=weights,
                batch_size=args.batch,
            )
        return next(iter(found["metrics"].values()))

    contenders = {"sphere_jax": ours}
    if original:
        from pytorch_fid import fid_score

        paths = [str(folder) for folder in folders]

        def theirs():
            with contextlib.redirect_stderr(io.StringIO()):
                # pytorch-fid's own default, but in the process whose processor time is counted
                workers = 0 if args.threads == 1 else min(8, args.threads)
                return fid_score.calculate_fid_given_paths(paths, args.batch, "cpu", 2048, workers)

        contenders["pytorch-fid"] = theirs
    title = f"whole command, 2 x {args.images} pictures of {args.side} px, pictures/s"
    show(title, contenders, args, clock, 2 * args.images, warm_up=False)


def random_weights(args: argparse.Namespace) -> tuple[Path, Callable | None]:
    """A file for the network, and pytorch-fid's network with the same weights, if it is that one
    and the package is installed."""
    kind = plugins.find("evaluation.features", "FEATURES", args.network, "--network")
    entry, file = catalogue()[kind.weights], smoke.folder() / f"{kind.weights}.safetensors"
    network, original = entry.network(), None
    if args.network == PYTORCH_FID:
        with without("pytorch-fid"):
            import_packages()
            import torch
            from pytorch_fid import inception as theirs

            torch.manual_seed(args.seed)
            model = randomise(inception().eval())
            for layer in model.modules():  # with PyTorch's own, all images have equal features
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight)
            theirs.fid_inception_v3 = lambda: model
            original = theirs.InceptionV3([3]).eval()
    if original:
        params = convert(published(model), entry.layouts(network), network)
    else:
        rng = np.random.default_rng(args.seed)

        def leaf(shape):  # activations of size one in all layers, and variances above zero
            if len(shape.shape) < 2:
                return rng.uniform(0.5, 1.5, shape.shape).astype(np.float32)
            deviation = np.prod(shape.shape[:-1]) ** -0.5
            return (deviation * rng.standard_normal(shape.shape)).astype(np.float32)

        params = jax.tree.map(leaf, network.shapes)
    write_weights(file, params, kind.weights, "random")
    return file, original


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Goes on without a package that does not import, and says why."""
    try:
        yield
    except ImportError as error:
        print(f"{name}: {error}; sphere_jax alone")


def import_packages() -> None:
    """Raises ImportError without torchvision, which theirs need."""
    from_tests("torchvision_shim").import_torchvision()


def show(
    title: str,
    contenders: dict[str, Callable],
    args: argparse.Namespace,
    clock: Callable[[], float],
    count: int = 1,
    warm_up: bool = True,
) -> None:
    """A line for each contender, and how far apart their results are. Without a warm-up a turn is
    one call, the first included."""
    if warm_up:
        times = rounds.time_rounds(contenders, args.rounds, clock, args.seconds)
    else:
        times = {name: [] for name in contenders}
    found = {}
    for turn in range(1 if warm_up else args.rounds):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            found[name] = np.asarray(contenders[name](), np.float64)
            if not warm_up:
                times[name].append(clock() - start)
    print(f"\n{title}; min / median / max over rounds")
    first = next(iter(times))
    for name, seconds in times.items():
        rates = rounds.spread([count / s for s in seconds], "{:.4g}")
        line = f"  {name:<16}{rates:>30}"
        if name != first:
            ratios = [other / own for other, own in zip(seconds, times[first], strict=True)]
            apart = np.abs(found[name] - found[first]).max() / np.abs(found[name]).max()
            line += f"   {first} is {rounds.spread(ratios, '{:.2f}')} x as fast"
            line += f"; results {apart:.1e} apart"
        print(line, flush=True)


if __name__ == "__main__":
    run_command(main)
