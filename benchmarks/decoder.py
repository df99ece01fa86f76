"""What finetuning a decoder on projected latents wins and loses: the four cells, and the control.

    python -m benchmarks.decoder --run=runs/flowers_decoder --control=runs/flowers_vanilla \\
        --out=docs/decoder.md

Both are runs of one config with a 'decoder' stage; the control's is `--config.space.path=linear`,
and may be left out. Reads what their stages measured, prints the page and writes it. Pictures are
in the runs' own report.html.
"""

import json
import os
import platform
import shlex
import textwrap
from pathlib import Path
from typing import Any

from sphere_jax.building import build_tokenizer
from sphere_jax.cli import parser, run_command
from sphere_jax.config import read_group
from sphere_jax.errors import UserError
from sphere_jax.files import read_json, write_text
from sphere_jax.options import Config
from sphere_jax.training.logging import read_rows

CELLS = {
    "raw_original": ("raw", "as published"),
    "projected_original": ("projected", "as published"),
    "projected_finetuned": ("projected", "finetuned on projected"),
    "raw_finetuned": ("raw", "finetuned on projected"),
}
NAMES = {"psnr": "PSNR, dB ↑", "ssim": "SSIM ↑", "lpips": "LPIPS (AlexNet) ↓"}


def main(argv: list[str]) -> None:
    flags = parser(__doc__.splitlines()[0], "exit codes: 0 done, 2 something to mend")
    flags.add_argument("--run", required=True, type=Path, help="folder of a finished run")
    flags.add_argument("--control", type=Path, help="that of the same on raw latents")
    flags.add_argument("--out", type=Path, help="the page, say docs/decoder.md")
    arguments = flags.parse_args(argv)
    run = read_stage(arguments.run)
    control = read_stage(arguments.control) if arguments.control else None
    check(run, control)
    text = page(f"python -m benchmarks.decoder {shlex.join(argv)}", run, control)
    print(text)
    if arguments.out:
        write_text(arguments.out, text)


def read_stage(folder: Path) -> dict[str, Any]:
    """What a run's 'decoder' stage was, measured and took. Raises UserError."""
    found = read_json(folder / "config.json")
    record = read_json(folder / "stages" / "decoder.json")
    if found is None or record is None or not record["finished"]:
        raise UserError(f"{folder} has no finished stage 'decoder'; run sphere_jax.main first.")
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "decoder"]
    seconds = [row["training_seconds"] for row in rows if "training_seconds" in row]
    return {
        "config": found["config"],
        "jax": found["versions"]["jax"],
        "depends": record["depends"],
        "metrics": record["metrics"],
        "seconds": max(seconds, default=None),
    }


def check(run: dict, control: dict | None) -> None:
    """Raises UserError unless the two differ in nothing but what is projected."""
    if run["depends"]["projection"] == "none":
        raise UserError("The run must project its latents; --control is for one that does not.")
    if control is None:
        return
    ours, theirs = (dict(stage["depends"]) for stage in (run, control))
    projections = [values.pop("projection") for values in (ours, theirs)]
    if ours != theirs:
        differ = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
        raise UserError(f"Run and control differ in {', '.join(sorted(differ))}.")
    if projections[1] != "none":
        raise UserError("The control must not project its latents: --config.space.path=linear.")


def page(command: str, run: dict, control: dict | None) -> str:
    paragraphs = [
        "wrote this page from what 'decoder' stages measured at their end "
        "(`methods/decoder_finetuning.py`); pictures of the cells are in the runs' `report.html`. "
        f"The encoder is frozen. {projection(run)}",
        f"{cost(run['metrics'])} {by_itself(control)}",
        protocol(run),
    ]
    about, result, made = (
        textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
        for text in paragraphs
    )
    rows = "\n".join(table(run, control))
    title = "# A decoder finetuned on projected latents"
    return f"{title}\n\n    {command}\n\n{about}\n\n{rows}\n\n{result}\n\n{made}\n"


def table(run: dict, control: dict | None) -> list[str]:
    measured = [
        key.removesuffix("_raw_original") for key in run["metrics"] if key.endswith("_raw_original")
    ]
    heads = [NAMES.get(name, name.replace("_", " ") + " ↓") for name in measured]
    lines = [["latents", "decoder", *heads], ["---"] * (2 + len(heads))]
    lines += [[*words, *values(run, measured, cell)] for cell, words in CELLS.items()]
    if control:
        found = values(control, measured, "raw_finetuned")
        lines.append(["raw", "finetuned on raw (FT-vanilla)", *found])
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
    """What became of latents, in words."""
    where = run["depends"]["projection"]
    where = "global sphere, RMS 1" if where.startswith("global") else where
    if is_normalised(run["config"]):
        return (
            f"Latents are normalised per channel, then projected ({where}); the decoder gets them "
            "through the inverse of the normalisation (methods.md A.10)."
        )
    return f"Latents are projected as they are encoded ({where}), not normalised per channel first."


def is_normalised(config: dict[str, Any]) -> bool:
    """Reads the groups that say it, no other: a run may be older than an option of its stages."""
    groups = {name: config[name] for name in ("stages", "data", "tokenizer")}
    return "statistics" in build_tokenizer(read_group(Config, groups, "config")).parts


def cost(metrics: dict[str, float]) -> str:
    """Of projection, and what finetuning gives back."""
    before = metrics["psnr_projected_original"]
    lost = metrics["psnr_raw_original"] - before
    back = metrics["psnr_projected_finetuned"] - before
    if lost <= 0:
        return (
            f"Projection costs no PSNR with the decoder as published ({abs(lost):+.2f} dB); "
            f"finetuning on projected latents adds {back:+.2f} dB to theirs."
        )
    told = (
        f"Projection costs {lost:.2f} dB of PSNR with the decoder as published, and finetuning on "
        f"projected latents gives back {back:.2f} dB of it, {100 * back / lost:.0f} %."
    )
    worse = [
        name.removesuffix("_projected_finetuned").replace("_", " ")
        for name, value in metrics.items()
        if name.startswith(("lpips", "frechet")) and name.endswith("_projected_finetuned")
        if value > metrics[name.replace("finetuned", "original")]
    ]
    return told + (f" It makes this worse: {', '.join(worse)}." if worse else "")


def by_itself(control: dict | None) -> str:
    told = "the same run with `--config.space.path=linear`"
    if control is None:
        return f"What finetuning does by itself is not known: the control, {told}, was not given."
    return (
        "The last row against the first is what finetuning does by itself: the paper's control, "
        f"{told}."
    )


def protocol(run: dict) -> str:
    config, stage = run["config"], run["config"]["decoder"]
    tokenizer = config["tokenizer"].get("kind", config["tokenizer"]["name"])
    minutes = f" ({run['seconds'] / 60:.0f} minutes)" if run["seconds"] else ""
    used = {"lpips_weight": stage["lpips"]}  # a weight counts where there is what it weighs
    weights = {k: v for k, v in stage.items() if k.endswith("_weight") and v and used.get(k, True)}
    optimizer = {k: v for k, v in stage["optimizer"].items() if v}
    judge, noise = "none", stage["latent_noise"]
    if stage["adversarial_weight"]:
        judge = (
            f"'{stage['discriminator']}' from fresh weights, at {stage['discriminator_rate']:g} "
            f"times the learning rate, counted from step {stage['adversarial_from']:,}"
        )
    return (
        f"**Protocol.** `{tokenizer}`, {config['data']['source']} data at "
        f"{config['data']['image_size']} px, all held-out images. {stage['steps']:,} steps of "
        f"{stage['batch_size']} images, seed {config['seed']}{minutes}. Weights of the loss: "
        f"{json.dumps(weights)}. Discriminator: {judge}. Noise on latents: "
        f"{f'up to {noise:g}' if noise else 'none'}. Optimizer: {json.dumps(optimizer)}. EMA: "
        f"{stage['ema_decay']}. Images are clipped and rounded to uint8 before they are measured. "
        "Each number is a mean over images, but for the Frechet distance, which is between the "
        "reconstructions and their own images. One seed: no spread is known. Trained with jax "
        f"{run['jax']}; this page was written on {os.cpu_count()} {platform.machine()} cores."
    )


if __name__ == "__main__":
    run_command(main)
