"""Lines with bands of standard errors, panels side by side, as the bytes of a PNG file."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from sphere_jax.evaluation.figures import COLOURS, DPI, add_legend, as_png, panel_axes


class Panel(NamedTuple):
    """`lines`: name -> (x (n,), y (n,), standard error of y (n,))."""

    title: str
    xlabel: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def panels(shown: list[Panel], marked: bool = False) -> bytes:
    """Side by side; `marked` puts a dot on every point. Lines of one name have one colour."""
    figure = Figure(figsize=(3.6 * len(shown), 2.9), dpi=DPI, layout="constrained")
    for number, panel in enumerate(shown):
        axes = panel_axes(figure, (1, len(shown), number + 1), panel.title, panel.xlabel, "")
        for (name, (x, y, error)), colour in zip(panel.lines.items(), COLOURS, strict=False):
            axes.plot(
                x, y, color=colour, linewidth=1.7, label=name, marker="o" if marked else "",
                markersize=3.5,
            )  # fmt: skip
            axes.fill_between(x, y - error, y + error, color=colour, alpha=0.25, linewidth=0)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        if number == 0:
            add_legend(axes)
    return as_png(figure)
