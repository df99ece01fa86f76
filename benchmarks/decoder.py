"""What finetuning a decoder on projected latents wins and loses: the four cells, and the control.

    python -m benchmarks.decoder --run=runs/flowers_decoder --control=runs/flowers_vanilla \\
        --out=docs/decoder.md

Both are runs of one config that end with a 'decoder' stage; the control's is `--config.space.path=
linear`. Reads what their stages measured, prints the page and writes it. Pictures are in the runs'
own report.html.
"""

import json
import os
import platform
import shlex
from pathlib import Path
from typing import Any

import jax

from sphere_jax.cli import parser, run_command
from sphere_jax.errors import UserError
from sphere_jax.files import read_json, write_text
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
    flags.add_argument("--control", required=True, type=Path, help="the same on raw latents")
    flags.add_argument("--out", type=Path, help="the page, say docs/decoder.md")
    arguments = flags.parse_args(argv)
    run, control = (read_stage(folder) for folder in (arguments.run, arguments.control))
    check_control(run, control)
    text = page(f"python -m benchmarks.decoder {shlex.join(argv)}", run, control)
    print(text)
    if arguments.out:
        write_text(arguments.out, text)


def read_stage(folder: Path) -> dict[str, Any]:
    """Config, metrics and seconds of training of a run's 'decoder' stage. Raises UserError."""
    found = read_json(folder / "config.json")
    record = read_json(folder / "stages" / "decoder.json")
    if found is None or record is None or not record["finished"]:
        raise UserError(f"{folder} has no finished stage 'decoder'; run sphere_jax.main first.")
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["stage"] == "decoder"]
    seconds = [row["training_seconds"] for row in rows if "training_seconds" in row]
    return {
        "config": found["config"],
        "depends": record["depends"],
        "metrics": record["metrics"],
        "seconds": max(seconds, default=None),
    }


def check_control(run: dict, control: dict) -> None:
    """Raises UserError unless the two differ in nothing but what is projected."""
    ours, theirs = (dict(stage["depends"]) for stage in (run, control))
    projections = [values.pop("projection") for values in (ours, theirs)]
    if ours != theirs:
        differ = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
        raise UserError(f"Run and control differ in {', '.join(sorted(differ))}.")
    if projections[0] == "none" or projections[1] != "none":
        raise UserError("The run must project its latents, and the control must not.")


def page(command: str, run: dict, control: dict) -> str:
    config, stage = run["config"], run["config"]["decoder"]
    measured = [
        key.removesuffix("_raw_original") for key in run["metrics"] if key.endswith("_raw_original")
    ]
    rows = [[*words, values(run, measured, cell)] for cell, words in CELLS.items()]
    rows.append(
        ["raw", "finetuned on raw (FT-vanilla)", values(control, measured, "raw_finetuned")]
    )
    heads = [NAMES.get(name, name.replace("_", " ") + " ↓") for name in measured]
    table = [f"| latents | decoder | {' | '.join(heads)} |", "|" + " --- |" * (2 + len(heads))]
    table += [f"| {z} | {decoder} | {' | '.join(numbers)} |" for z, decoder, numbers in rows]
    psnr = {cell: run["metrics"][f"psnr_{cell}"] for cell in CELLS}
    lost = psnr["raw_original"] - psnr["projected_original"]
    back = psnr["projected_finetuned"] - psnr["projected_original"]
    optimizer = json.dumps({k: v for k, v in stage["optimizer"].items() if v})
    used = {"lpips_weight": stage["lpips"]}  # a weight counts where there is what it weighs
    weights = {k: v for k, v in stage.items() if k.endswith("_weight") and v and used.get(k, True)}
    weights = json.dumps(weights)
    minutes = f" ({run['seconds'] / 60:.0f} minutes)" if run["seconds"] else ""
    projection = run["depends"]["projection"]
    normalised = "" if config["tokenizer"].get("pretrained_statistics") else "not "
    tokenizer = config["tokenizer"].get("kind", config["tokenizer"]["name"])
    data = f"{config['data']['source']} data at {config['data']['image_size']} px"
    hardware = f"{os.cpu_count()} {platform.machine()} cores, jax {jax.__version__} on "
    return f"""# A decoder finetuned on projected latents

    {command}

wrote this page from what the two runs measured at the end of their `decoder` stage
(`methods/decoder_finetuning.py`); pictures of the cells are in their `report.html`. The encoder is
frozen. Tokens are {normalised}normalised per channel, then projected ({projection});
the decoder gets them through the inverse of the normalisation (methods.md A.10).

{chr(10).join(table)}

Projection costs {lost:.2f} dB of PSNR with the decoder as published, and finetuning on projected
latents gives back {back:.2f} dB of it, {100 * back / lost:.0f} %. The last row against the first is
what finetuning does by itself: the paper's control, the same run with `--config.space.path=linear`.

**Protocol.** `{tokenizer}`, {data}, all held-out images. {stage["steps"]:,} steps of
{stage["batch_size"]} images, seed {config["seed"]}{minutes}. Weights of the loss: {weights}; LPIPS
in the loss: {"yes" if stage["lpips"] else "no"}. Optimizer: {optimizer}. EMA: {stage["ema_decay"]}.
Images are clipped and rounded to uint8 before they are measured. Each number is a mean over images,
but for the Frechet distance, which is between the reconstructions and their own images. One seed:
no spread is known. {hardware}{jax.default_backend()}.
"""


def values(stage: dict, measured: list[str], cell: str) -> list[str]:
    """The cell's numbers in words; a dash for one that this run did not measure."""
    found = [stage["metrics"].get(f"{name}_{cell}") for name in measured]
    digits = {"psnr": 2}
    return [
        "–" if value is None else f"{value:.{digits.get(name, 4)}f}"
        for name, value in zip(measured, found, strict=True)
    ]


if __name__ == "__main__":
    run_command(main)
