"""Scores of several arms while they train, as figures."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sphere_jax.evaluation.figures import (
    COLOURS,
    DPI,
    INK,
    add_legend,
    as_png,
    panel_axes,
)

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))  # when colours run out
MOST_INSIDE = 5  # names in a legend inside a panel
Curves = Sequence[tuple[Sequence[float], Sequence[float]]]  # of one arm: (x, y) of every seed


def band(curves: Curves) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, mean, least and greatest y over seeds, point by point as far as all of them go.

    x is the mean over seeds too: steps are the same in all, seconds are not.
    """
    count = min(len(x) for x, _ in curves)
    x = np.array([x[:count] for x, _ in curves], float)
    y = np.array([y[:count] for _, y in curves], float)
    return x.mean(0), y.mean(0), y.min(0), y.max(0)


def band_curves(
    xlabel: str,
    panels: Mapping[str, Mapping[str, Curves]],
    targets: Mapping[str, float | None],
) -> bytes:
    """PNG: one panel a metric, {title: {arm: curves}}; the mean over seeds as a line and their
    range as a band; dashed, the target of a panel that has one."""
    across = min(2, len(panels))
    rows = -(-len(panels) // across)
    names = list(dict.fromkeys(name for arms in panels.values() for name in arms))
    styles = list(itertools.islice(itertools.product(DASHES, COLOURS), len(names)))
    styles += [styles[-1]] * (len(names) - len(styles))
    columns = 2 * across if max(map(len, names)) < 20 else across
    below = len(names) > MOST_INSIDE  # the legend's place
    height = 2.9 * rows + (0.2 * -(-len(names) // columns) if below else 0.0)
    figure = Figure(figsize=(4.2 * across, height), dpi=DPI, layout="constrained")
    for number, (title, arms) in enumerate(panels.items(), 1):
        axes = panel_axes(figure, (rows, across, number), title, xlabel, "")
        for name, (dash, colour) in zip(names, styles, strict=True):
            if name not in arms:
                continue
            x, mean, low, high = band(arms[name])
            axes.plot(x, mean, color=colour, lw=1.7, ls=dash, marker="o", ms=3, label=name)
            if len(arms[name]) > 1:
                axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        if targets.get(title) is not None:
            axes.axhline(targets[title], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        if number == 1 and not below:
            add_legend(axes)
    if below:
        found = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
        drawn = {label: line for pairs in found for line, label in pairs}
        figure.legend(
            drawn.values(),
            drawn.keys(),
            loc="outside lower left",
            ncols=columns,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            handlelength=3,
        )
    return as_png(figure)
