"""The table and the picture of `benchmarks.bf16_training`."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sphere_jax.evaluation.figures import COLOURS, DPI, INK

SHOWN = {  # in the picture: (colour, line)
    "float32": (INK, "-"),
    "float32, nudged": (INK, ":"),
    "ours": (COLOURS[0], "-"),
    "everything": (COLOURS[4], "-"),
    "ours, but parameters and moments": (COLOURS[1], "-"),
    "ours, but residual stream": (COLOURS[2], "--"),
    "ours, but geometry": (COLOURS[3], "--"),
    "ours, but moving average": (COLOURS[5], ":"),
}


def print_table(found: Sequence[dict]) -> None:
    """Of every arm: final held-out loss of raw and averaged parameters, its difference from float32
    of the same seed, and the largest such difference during training, in per cent; spikes.

    Above it, the losses of float32 before the first step, and the spread of its final losses over
    seeds.
    """
    exact = {run["seed"]: np.array(run["curve"]) for run in found if run["arm"] == "float32"}
    if not found or 0 not in exact:
        return
    finals = np.array([curve[-1, 1:] for curve in exact.values()])
    steps, model = found[0]["steps"], found[0]["model"]
    first = ", ".join(f"{curve[0, 1]:.4f}" for curve in exact.values())
    print(f"\n{model}, {steps} steps; float32, seeds {', '.join(map(str, exact))}: ", end="")
    apart = 100 * np.ptp(finals, axis=0) / finals.mean(axis=0)
    print(f"at step 0 {first}; ", end="")
    print(f"from seed to seed {apart[0]:.2f} % (raw), {apart[1]:.2f} % (average)\n")
    names = ["arm", "seed", "loss", "to float32", "largest", "average's loss", "to float32"]
    names += ["gradient norm", "spikes", "not finite"]
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for run in found:
        curve = np.array(run["curve"])
        row = [run["arm"], run["seed"], f"{curve[-1, 1]:.4f}", "", "", f"{curve[-1, 2]:.4f}", ""]
        if run["arm"] != "float32" and run["seed"] in exact:
            # At step 0 nothing is learnt; the first column is the step.
            apart = 100 * (curve[1:, 1:] / exact[run["seed"]][1:, 1:] - 1)
            row[3], row[6] = (f"{x:+.2f} %" for x in apart[-1])
            row[4] = f"{np.max(np.abs(apart[:, 0])):.2f} %"
        row += [f"{run['gradient_norm']:.3f}", run["spikes"], run["not_finite"]]
        print("| " + " | ".join(map(str, row)) + " |")


def draw(found: Sequence[dict], path: Path) -> None:
    """Held-out loss of the raw parameters, and how far each arm is from float32 of its seed."""
    exact = {run["seed"]: np.array(run["curve"]) for run in found if run["arm"] == "float32"}
    with plt.rc_context(
        {name: INK for name in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color",
                                "ytick.color")}
    ):  # fmt: skip
        figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        for run in found:
            if run["arm"] not in SHOWN or run["seed"] not in exact:
                continue
            colour, line = SHOWN[run["arm"]]
            steps, raw, ema = np.array(run["curve"]).T
            label = run["arm"] if run["seed"] == 0 else None
            averaged = run["arm"] == "ours, but moving average"
            curve, column = (ema, 2) if averaged else (raw, 1)
            if run["seed"] == 0:
                panels[0].plot(steps, curve, line, color=colour, label=label, linewidth=1.5)
            if run["arm"] != "float32":
                apart = 100 * (curve / exact[run["seed"]][:, column] - 1)
                panels[1].plot(steps, apart, line, color=colour, label=label, linewidth=1.5)
        panels[0].set(xlabel="step", ylabel="held-out loss", title="Loss, seed 0")
        panels[1].set(xlabel="step", ylabel="per cent", title="Above float32 of the same seed")
        panels[1].set_yscale("symlog", linthresh=1)
        panels[1].axhline(0, color=INK, linewidth=0.8)
        for panel in panels:
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(alpha=0.25)
            panel.set_facecolor("none")
        panels[0].legend(frameon=False, fontsize="small")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI, transparent=True)
        plt.close(figure)
