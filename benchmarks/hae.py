"""HAE's published orderings at small scale: each arm against its control, over seeds.

    python -m benchmarks.hae --data FLOWERS.npz --out runs/hae_orderings

Base: configs/flowers_hae.py. Arms change one value each, and shared stages are trained once: those
of GENERATORS by sphere_jax.compare, which checks that the rest is equal; those of ENCODERS are
measured behind the stage that they change, and have no flow. `--config.a.b=v` changes the base. The
same command resumes. At the end the orderings of arXiv 2601.22904 are printed as a table, with the
numbers of every seed, whether they appear or not; then the baseline's decode radius is swept.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks import smoke
from sphere_jax import compare, evaluate
from sphere_jax import main as training
from sphere_jax.cli import run_command

CONFIG = smoke.ROOT / "configs" / "flowers_hae.py"
BASELINE = "HAE"
ENCODERS = {
    "patch embedding": "tokenizer.stem=patch",
    "MSE alignment": "align.align=mse",
    "no alignment": "align.align=none",
}
GENERATORS = {
    BASELINE: "",
    "no smoothing": ",".join(
        f"decode.latent_noise{end}" for end in ("=0.0", "_end=0.0", "_ramp=0")
    ),
    "no radial penalty": "flow.radial_weight=0.0",
    "Euclidean": "space.path=linear",
}
MULTIPLES = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6)  # of the tokens' mean norm: decode radii
SMALL = {
    "data.image_size": 32,
    "data.num_classes": 2,
    "tokenizer.vit_width": 32,
    "tokenizer.vit_depth": 1,
    "tokenizer.vit_heads": 2,
    "tokenizer.patch": 4,
    "tokenizer.stem_widths": "8",
    "tokenizer.decoder_widths": "8,16,32",
    "tokenizer.decoder_depths": "1,1,1",
    "tokenizer.attention_levels": 1,
    "decode.discriminator_width": 4,
    "decode.discriminator_from": 0,
    "decode.adversarial_from": 0,
    "decode.latent_noise_ramp": 1,
    "model.width": 32,
    "model.depth": 1,
    "model.heads": 2,
    "sampler.steps": 1,
    "evaluation.samples": 6,
    "evaluation.classifier_steps": 2,
    **{f"{stage}.steps": 2 for stage in ("teacher", "align", "decode", "flow")},
    **{f"{stage}.batch_size": 4 for stage in ("teacher", "align", "decode", "flow")},
    **{f"{stage}.optimizer.warmup": 1 for stage in ("teacher", "align", "flow")},
}


def main(argv: list[str]) -> None:
    shared = [flag for flag in argv if flag.startswith("--config.")]
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--data", required=True, help="photographs with labels, .npz")
    flags.add_argument("--out", required=True, help="a folder for all runs")
    flags.add_argument("--seeds", default="0,1")
    known = [*GENERATORS, *ENCODERS]
    flags.add_argument("--arms", nargs="+", default=known, choices=known)
    args = smoke.parse(flags, [flag for flag in argv if flag not in shared], _smoke)
    if args.smoke:
        shared = [*(f"--config.{key}={value}" for key, value in SMALL.items()), *shared]
    wanted, seeds = {BASELINE, *args.arms}, args.seeds.split(",")
    shared += [f"--config.data.path={args.data}"]
    with contextlib.redirect_stdout(sys.stderr):
        command = [f"--config={CONFIG}", f"--workdir={args.out}", f"--seeds={args.seeds}"]
        command += [f"--baseline={BASELINE}", *shared]
        command += [f"--arm={name}:{GENERATORS[name]}" for name in GENERATORS if name in wanted]
        compare.main(command)
        for seed in seeds:
            for name in (name for name in ENCODERS if name in wanted):
                train_encoder(Path(args.out), name, seed, shared)
    arms = [name for name in (*GENERATORS, *ENCODERS) if name in wanted]
    found = {name: results(Path(args.out), name, seeds) for name in arms}
    print_table(found)
    print_radii(Path(args.out), seeds)


def train_encoder(root: Path, name: str, seed: str, shared: list[str]) -> None:
    """The arm of ENCODERS up to the stage that it changes, on the baseline's teacher."""
    command = [f"--config={CONFIG}", f"--workdir={folder_of(root, name, seed)}", *shared]
    command += [f"--from_run={folder_of(root, BASELINE, seed)}", f"--config.seed={seed}"]
    training.main([*command, "--config.stages=teacher,align", f"--config.{ENCODERS[name]}"])


def results(root: Path, name: str, seeds: list[str]) -> list[dict[str, float]]:
    """Metrics of each seed's run, those of a stage as "align.reconstruction_psnr"."""
    found = []
    for seed in seeds:
        stored = json.loads((folder_of(root, name, seed) / "results.json").read_text())
        rows = {f"{stage}.{key}": value for stage, metrics in stored["stages"].items()
                for key, value in metrics.items()}  # fmt: skip
        found.append(rows | stored.get("metrics", {}))
    return found


def folder_of(root: Path, name: str, seed: str) -> Path:
    """Of an arm's run. `compare` makes names fit for files, and keeps its folder for its own."""
    from sphere_jax.studies.comparing.arms import named_arm

    root = root.with_name(f"{root.name}-encoders") if name in ENCODERS else root
    return root / named_arm(f"{name}:").folder(int(seed))


def print_table(found: dict[str, list[dict[str, float]]]) -> None:
    """Every arm's numbers, and what of the published orderings they show."""
    keys = [key for key in found[BASELINE][0] if _shown(key)]
    print("| measured | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    for key in keys:
        cells = [", ".join(f"{row[key]:.3f}" if key in row else "-" for row in rows)
                 for rows in found.values()]  # fmt: skip
        print(f"| {key.replace('_', ' ')} | {' | '.join(cells)} |")
    print("\n| published | control | metric | differences by seed | appears |")
    print("| --- | --- | --- | --- | --- |")
    for text, control, key, sign in ORDERINGS:  # a key may go on with the name of the features
        if control not in found:
            continue
        key = next(name for name in found[control][0] if name.startswith(key))
        pairs = zip(found[BASELINE], found[control], strict=True)
        apart = [ours[key] - theirs[key] for ours, theirs in pairs]
        appears = "yes" if all(sign * a > 0 for a in apart) else "no"
        print(f"| {text} | {control} | {key.replace('_', ' ')} | "
              f"{', '.join(f'{a:+.3f}' for a in apart)} | {appears} |")  # fmt: skip


def _shown(key: str) -> bool:
    return any(part in key for part in ("psnr", "probe", "frechet", "cosine", "norm_student"))


FRECHET = "frechet_distance"
ORDERINGS = (  # text, control, metric, sign of baseline minus control
    ("a convolutional stem keeps more detail", "patch embedding", "align.reconstruction_psnr", 1),
    ("cosine alignment keeps more detail", "MSE alignment", "align.reconstruction_psnr", 1),
    ("alignment keeps meaning", "no alignment", "align.probe_student_top1", 1),
    ("smoothing lowers reconstruction", "no smoothing", "decode.reconstruction_psnr", -1),
    ("smoothing raises samples", "no smoothing", FRECHET, -1),
    ("the radial penalty raises samples", "no radial penalty", FRECHET, -1),
    ("Riemannian flow beats Euclidean", "Euclidean", FRECHET, -1),
)


def print_radii(root: Path, seeds: list[str]) -> None:
    """Scores of the baseline's samples against the radius that they are decoded at."""
    for seed in seeds:
        run = folder_of(root, BASELINE, seed)
        stored = json.loads((run / "results.json").read_text())
        norm = stored["stages"]["decode"]["norm_student"]
        radii = ",".join(f"{multiple * norm:.2f}" for multiple in MULTIPLES)
        print(f"\nseed {seed}: decode radius around the mean norm {norm:.2f}")
        command = [f"--workdir={run}", f"--sweep=decode_radius={radii}"]
        command += [f"--num={stored['protocol']['samples']}", f"--out={run / 'radii.json'}"]
        evaluate.main(command)


def _smoke() -> list[str]:
    folder = smoke.folder()
    images = smoke.random_images(40, 32)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 2)
    return [
        f"--data={folder / 'images.npz'}",
        f"--out={folder / 'runs'}",
        "--seeds=0",
        "--arms",
        "Euclidean",  # which shares all stages but the last
        "MSE alignment",
    ]


if __name__ == "__main__":
    run_command(main)
