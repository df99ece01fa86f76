"""Gains and costs of finetuning a decoder on projected latents: four cells, and the controls.

    python -m benchmarks.decoder runs/pixels runs/pixels_raw runs/lpips --out=docs/decoder.md \\
        --picture=docs/images/decoder.png

Runs of one tokenizer on one data set with a 'decoder' stage each. A run without projection
(`--config.space.path=linear`) is the control of the run with otherwise equal options. Reads the
stages' measurements, prints the page and writes it; a recipe has the name of its folder. The
picture shows two photographs that may be published; those of the data are in the runs' report.html.
"""

import json
import os
import platform
import shlex
import textwrap
from pathlib import Path
from typing import Any

from benchmarks import decoder_picture, smoke
from sphere_jax.cli import Parser, run_command
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json, write_bytes, write_text
from sphere_jax.config.options import Config
from sphere_jax.config.reading import read_group
from sphere_jax.evaluation.figures import labelled_rows
from sphere_jax.methods.decoder import DecoderOptions
from sphere_jax.runs.records import completed
from sphere_jax.runs.system import System
from sphere_jax.training.run_log import read_rows

NAMES = {"psnr": "PSNR, dB ↑", "ssim": "SSIM ↑", "lpips": "LPIPS (AlexNet) ↓"}
ABOUT = """writes this page from the measurements of finished 'decoder' stages
(`methods/decoder.py`); images of the data are in the runs' `report.html`. The encoder is frozen.
"Raw" latents are decoded without projection. A control is the same training without projection
(FT-vanilla in the paper): the effect of finetuning alone."""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.splitlines()[0])
    flags.add_argument("runs", nargs="+", type=Path, help="folders of finished runs and controls")
    flags.add_argument("--out", type=Path, help="the page, for example docs/decoder.md")
    flags.add_argument("--picture", type=Path, help="FILE.png of the cells, which the page shows")
    arguments = smoke.parse(flags, argv, smoke_flags)
    stages = [read_stage(folder) for folder in arguments.runs]
    runs = paired([s for s in stages if not is_control(s)], [s for s in stages if is_control(s)])
    shown = ""
    if arguments.picture:
        write_bytes(arguments.picture, labelled_rows(decoder_picture.cells(runs)))
        place = os.path.relpath(arguments.picture, (arguments.out or Path("page")).parent)
        shown = f"![What the cells make of two photographs]({place})\n\n*{decoder_picture.CREDIT}.*"
    text = page(f"python -m benchmarks.decoder {shlex.join(argv)}", runs, shown)
    print(text)
    if arguments.out:
        write_text(arguments.out, text)


def smoke_flags() -> list[str]:
    out, picture = smoke.folder() / "decoder.md", smoke.folder() / "decoder.png"
    return [str(smoke.trained_run()), f"--out={out}", f"--picture={picture}"]


def read_stage(folder: Path) -> dict[str, Any]:
    """Config, record, metrics and seconds of a run's 'decoder' stage. Raises UserError."""
    found = read_json(folder / "config.json")
    record = read_json(folder / "stages" / "decoder.json")
    if found is None or record is None or not record["finished"]:
        raise UserError(f"{folder} has no finished stage 'decoder'; run sphere_jax.main first.")
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "decoder"]
    seconds = [row["training_seconds"] for row in rows if "training_seconds" in row]
    return {
        "name": folder.name,
        "folder": folder,
        "config": found["config"],
        "jax": found["versions"]["jax"],
        "depends": record["depends"],
        "metrics": record["metrics"],
        "seconds": max(seconds, default=None),
    }


def is_control(stage: dict) -> bool:
    return stage["depends"]["projection"] == "none"


def paired(runs: list[dict], controls: list[dict]) -> list[dict]:
    """Runs, each with its "control" or None. Raises UserError for runs that cannot be compared."""
    if not runs:
        raise UserError("None of these runs projects its latents; give the run of a control, too.")
    for run in (*runs, *controls):
        if differ := _differing(_measured_on(run), _measured_on(runs[0])):
            raise UserError(f"{run['name']} and {runs[0]['name']} differ in {', '.join(differ)}.")
    for control in controls:
        pairs = [_differing(_recipe_of(control), _recipe_of(run)) for run in runs]
        if all(pairs):
            raise UserError(
                f"{control['name']} projects nothing and is the control of no run here: from "
                f"{runs[0]['name']} it differs in {', '.join(pairs[0])}, too."
            )
    found = []
    for run in runs:
        own = [c for c in controls if not _differing(_recipe_of(c), _recipe_of(run))]
        if len(own) > 1:
            raise UserError(f"{own[0]['name']} and {own[1]['name']} are one control; give one.")
        found.append(run | {"control": own[0] if own else None})
    return found


def _differing(first: dict, second: dict) -> list[str]:
    keys = sorted(first.keys() | second.keys())
    return [key for key in keys if first.get(key) != second.get(key)]


def _measured_on(stage: dict) -> dict[str, Any]:
    """All that the first row of the table depends on, and the seed of all."""
    starts = ("data fingerprint", "config.data.", "config.tokenizer.", "config.seed")
    depends = {key: v for key, v in stage["depends"].items() if key.startswith(starts)}
    for key in [key for key in depends if "statistics" in key]:
        del depends[key]
    return depends | {"held-out images measured": stage["config"]["decoder"].get("measured", 0)}


def _recipe_of(stage: dict) -> dict[str, Any]:
    """Options that a run is too old to name are at their defaults."""
    config = Config(stages=(), groups={"decoder": DecoderOptions()})
    return completed(stage["depends"], config) | {"projection": None}


def page(command: str, runs: list[dict], shown: str = "") -> str:
    """In Markdown; `shown` goes between table and recipes."""
    result = [
        f"- **`{run['name']}`**, {recipe(run)}. {cost(run['metrics'])}{against_control(run)}"
        for run in runs
    ]
    about, made = _filled(ABOUT), _filled(protocol(runs[0]))
    found = "\n".join(_filled(text, "  ") for text in result)
    rows = "\n".join(table(runs))
    title = "# A decoder finetuned on projected latents"
    parts = (title, f"    {command}", about, rows, shown, found, made)
    return "\n\n".join(part for part in parts if part) + "\n"


def _filled(text: str, indent: str = "") -> str:
    text = " ".join(text.split())
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def table(runs: list[dict]) -> list[str]:
    measured = [
        key.removesuffix("_raw_original")
        for key in dict.fromkeys(key for run in runs for key in run["metrics"])
        if key.endswith("_raw_original")
    ]
    heads = [NAMES.get(name, name.replace("_", " ") + " ↓") for name in measured]
    lines = [["decoder", "latents", *heads], ["---"] * (2 + len(heads))]
    lines.append(["as published", "raw", *values(runs[0], measured, "raw_original")])
    for where in dict.fromkeys(projection(run) for run in runs):
        alike = [run for run in runs if projection(run) == where]
        lines.append(["as published", where, *values(alike[0], measured, "projected_original")])
        for run in alike:
            name = f"`{run['name']}`"
            lines.append([name, where, *values(run, measured, "projected_finetuned")])
            lines.append([name, "raw", *values(run, measured, "raw_finetuned")])
            if run["control"]:
                cells = values(run["control"], measured, "raw_finetuned")
                lines.append([f"control of {name}", "raw", *cells])
    return [f"| {' | '.join(line)} |" for line in lines]


def values(stage: dict, measured: list[str], cell: str) -> list[str]:
    """The cell's numbers in words; a dash for one that this run did not measure."""
    found = [stage["metrics"].get(f"{name}_{cell}") for name in measured]
    digits = {"psnr": 2}
    return [
        "–" if value is None else f"{value:.{digits.get(name, 4)}f}"
        for name, value in zip(measured, found, strict=True)
    ]


def projection(run: dict) -> str:
    """How latents were projected, in words."""
    where = run["depends"]["projection"]
    where = "global sphere, RMS 1" if where.startswith("global") else where
    return f"normalised per channel, then {where}" if is_normalised(run["config"]) else where


def is_normalised(config: dict[str, Any]) -> bool:
    """Reads no other groups than these: a run may be older than an option of its stages."""
    groups = {name: config[name] for name in ("stages", "data", "tokenizer")}
    return "statistics" in System(read_group(Config, groups, "config")).tokenizer.parts


def cost(metrics: dict[str, float]) -> str:
    """PSNR that projection costs, and that finetuning gives back, in words."""
    before = metrics["psnr_projected_original"]
    lost = metrics["psnr_raw_original"] - before
    back = metrics["psnr_projected_finetuned"] - before
    if lost <= 0:
        return (
            f"Projection costs no PSNR with the decoder as published ({abs(lost):+.2f} dB); "
            f"finetuning on projected latents adds {back:+.2f} dB to theirs."
        )
    text = (
        f"Projection costs {lost:.2f} dB of PSNR with the decoder as published, and finetuning on "
        f"projected latents gives back {back:.2f} dB of it, {100 * back / lost:.0f} %."
    )
    worse = [
        name.removesuffix("_projected_finetuned").replace("_", " ")
        for name, value in metrics.items()
        if name.startswith(("lpips", "frechet")) and name.endswith("_projected_finetuned")
        if value > metrics[name.replace("finetuned", "original")]
    ]
    return text + (f" It makes this worse: {', '.join(worse)}." if worse else "")


def against_control(run: dict) -> str:
    """The cost of projection that is left after both decoders had the same training, in words."""
    if not run["control"]:
        if run["config"]["decoder"].get("target") == "original":
            return " It has no control: on raw latents the decoder would have nothing to learn."
        return " The effect of finetuning alone is not known: its control was not given."
    own, control = run["metrics"], run["control"]["metrics"]
    parts = [
        f"{key.removesuffix('_raw_finetuned').replace('_', ' ')} {own[ours] - value:+.3g}"
        for key, value in control.items()
        if (ours := key.replace("_raw_", "_projected_")) in own and key.endswith("_raw_finetuned")
    ]
    return f" Against the control, on raw latents: {', '.join(parts)}."


def recipe(run: dict) -> str:
    """The loss in words."""
    stage = run["config"]["decoder"]
    used = {"lpips_weight": stage["lpips"]}  # a weight counts where there is what it weighs
    weights = {"L1": "l1_weight", "L2": "l2_weight", "LPIPS-VGG": "lpips_weight"}
    terms = [
        f"{name} {stage[key]:g}" for name, key in weights.items() if stage[key] and used.get(key, 1)
    ]
    if stage["adversarial_weight"]:
        terms.append(
            f"'{stage['discriminator']}' discriminator {stage['adversarial_weight']:g} from fresh "
            f"weights, at {stage['discriminator_rate']:g} times the learning rate, counted from "
            f"step {stage['adversarial_from']:,}"
        )
    target = "images"
    if stage.get("target", "images") == "original":
        target = "what the decoder as published makes of raw latents"
    noise = f", noise on latents up to {stage['latent_noise']:g}" if stage["latent_noise"] else ""
    optimizer = {key: value for key, value in stage["optimizer"].items() if value}
    minutes = f", {run['seconds'] / 60:.0f} minutes" if run["seconds"] else ""
    return (
        f"{stage['steps']:,} steps of {stage['batch_size']}{minutes}; loss: {', '.join(terms)}; "
        f"target: {target}{noise}; optimizer {json.dumps(optimizer)}, EMA {stage['ema_decay']}"
    )


def protocol(run: dict) -> str:
    config = run["config"]
    tokenizer = config["tokenizer"].get("kind", config["tokenizer"]["name"])
    measured = config["decoder"].get("measured", 0)
    return (
        f"**Protocol.** `{tokenizer}`, {config['data']['source']} data at "
        f"{config['data']['image_size']} px, {f'{measured:,}' if measured else 'all'} held-out "
        f"images, seed {config['seed']}. Images are clipped and rounded to uint8 before they are "
        "measured. Each number is a mean over images, except the Frechet distance, which is "
        "between the reconstructions and their images. One seed, so no spread is known. Minutes "
        "are training time on a machine that may have had other load. Trained "
        f"with jax {run['jax']}; this page was written on {os.cpu_count()} {platform.machine()} "
        "cores."
    )


if __name__ == "__main__":
    run_command(main)
