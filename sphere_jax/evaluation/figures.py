"""Pictures for the report, each returned as the bytes of a PNG file.

Backgrounds are transparent and inks of middle brightness, so that a figure reads on a light page
and on a dark one.
"""

import io
import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from sphere_jax.common.files import write_whole
from sphere_jax.data.array_checks import require_images
from sphere_jax.evaluation.preconditions import Images

INK = "#808793"
COLOURS = ("#3b82f6", "#f08c2e", "#22a06b", "#b565d9", "#e0555f", "#14a3b8")
GAP = 2  # pixels between images
DPI = 192  # twice the screen's, shown at half size


def grid(images: Images, columns: int) -> UInt8[np.ndarray, "y x c"]:
    """uint8 (N, H, W, C) to one image of sides rows (H + 2) - 2 and columns (W + 2) - 2.

    Read like text; gaps and the unfilled end of the last row are white.

    Raises:
      ValueError: not uint8 images, or columns < 1.
    """
    images = require_images(images, "images")
    if columns < 1:
        raise ValueError(f"A grid needs at least 1 column, not {columns}.")
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + GAP, width + GAP, channels), 255, np.uint8)
    cells[:count, :height, :width] = images
    lines = cells.reshape(rows, columns, height + GAP, width + GAP, channels)
    whole = lines.swapaxes(1, 2).reshape(rows * (height + GAP), columns * (width + GAP), channels)
    return whole[:-GAP, :-GAP]


def save_grid(images: Images, path: str | os.PathLike, columns: int) -> None:
    """Writes `grid(images, columns)` as a PNG file, atomically; makes the folder if need be."""
    whole = grid(images, columns)
    picture = Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
    write_whole(path, lambda temporary: picture.save(temporary, format="PNG"))


def labelled_rows(rows: Mapping[str, Images]) -> bytes:
    """Strips of images, one below the other, each with its name to the left.

    Args:
      rows: name -> uint8 (n, H, W, C); all images of one shape, n may differ.

    Raises:
      ValueError: no rows, or images of different shapes.
    """
    if not rows or len({images.shape[1:] for images in rows.values()}) != 1:
        raise ValueError("Labelled rows need at least one row, and images of one shape.")
    height, width, _ = next(iter(rows.values())).shape[1:]
    scale = max(1, round(128 / height))  # whole pixels for each pixel of an image
    across, line, gap = width * scale, (height + GAP) * scale, GAP * scale
    margin = 28 + 14 * max(map(len, rows))  # room for the longest name
    columns = max(len(images) for images in rows.values())
    size = np.array([margin + columns * (across + gap) - gap, len(rows) * line - gap])
    figure = Figure(figsize=size / DPI, dpi=DPI)
    for number, (name, images) in enumerate(rows.items()):
        bottom = size[1] - number * line - height * scale
        figure.text(
            (margin - 20) / size[0], (bottom + height * scale / 2) / size[1], name,
            ha="right", va="center", color=INK, fontsize=9, parse_math=False,
        )  # fmt: skip
        strip = grid(images, len(images)).repeat(scale, 0).repeat(scale, 1)
        seen = np.arange(strip.shape[1]) % (across + gap) < across  # gaps are transparent
        alpha = np.where(seen, 255, 0).astype(np.uint8).reshape(1, -1, 1)
        layers = [np.broadcast_to(x, (*strip.shape[:2], n)) for x, n in ((strip, 3), (alpha, 1))]
        figure.figimage(np.concatenate(layers, axis=-1), margin, bottom)
    return as_png(figure)


def sample_grid(
    images: Images,
    labels: Shaped[np.ndarray, " n"],
    class_names: Sequence[str],
    columns: int = 12,
    most_classes: int = 20,
) -> bytes:
    """The first `columns` samples of each of the first `most_classes` classes, one row a class."""
    rows = {}
    for label, name in enumerate(class_names):
        of_class = images[np.asarray(labels) == label][:columns]
        if len(of_class) and len(rows) < most_classes:
            rows[name] = of_class
    return labelled_rows(rows)


def points_by_stage(rows: Sequence[Mapping], key: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of the rows of `metrics.jsonl` ({"stage", "step", key, ...}), by stage. Rows
    without the key, or without a finite number, are left out."""
    stages: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        value = row.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            stages.setdefault(row["stage"], []).append((row["step"], value))
    return stages


def loss_curves(stages: Mapping[str, Sequence[tuple[int, float]]], ylabel: str) -> bytes:
    """One panel a stage of `points_by_stage`, each of two points or more.

    Pale: as logged; strong: running mean over a twentieth of the run. Logarithmic if positive and
    spread over a factor of 4.

    Raises:
      ValueError: there is no stage.
    """
    if not stages:
        raise ValueError("Curves need at least one stage.")
    across = min(3, len(stages))
    down = -(-len(stages) // across)
    figure = Figure(figsize=(3.6 * across, 2.5 * down), dpi=DPI, layout="constrained")
    for number, (stage, points) in enumerate(stages.items()):
        steps, values = np.array(points, float).T
        axes = panel_axes(
            figure, (down, across, number + 1), stage, "step", ylabel if number == 0 else ""
        )
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.9)
        axes.plot(steps, _running_mean(values), color=colour, linewidth=1.7)
        if values.min() > 0 and values.max() > 4 * values.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
    return as_png(figure)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a twentieth of the curve, over less of it near the ends."""
    reach = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - reach, 0)
    high = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def radius_along_path(
    radii: Mapping[str, Real[np.ndarray, "points ..."]],
    times: Real[np.ndarray, " points"] | None = None,
) -> bytes:
    """Token norm over radius while sampling; 1 is on the sphere.

    Args:
      radii: name -> (steps + 1,), or (steps + 1, B) for the mean and the band from least to most.
      times: (steps + 1,) from noise (1) to data (0) for the horizontal axis, else step numbers.
    """
    figure = Figure(figsize=(6.2, 3.0), dpi=DPI, layout="constrained")
    axes = panel_axes(
        figure,
        (1, 1, 1),
        "",
        "step, from noise to data" if times is None else "time, from noise (1) to data (0)",
        "norm / radius",
    )
    for (name, values), colour in zip(radii.items(), COLOURS, strict=False):
        values = np.asarray(values, float)
        along = np.arange(len(values)) if times is None else np.asarray(times)
        mean = values if values.ndim == 1 else values.mean(1)
        axes.plot(along, mean, color=colour, linewidth=1.8, label=name)
        if values.ndim == 2:
            axes.fill_between(
                along, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0
            )
    axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.9), max(high, 1.1))  # rounding errors must not look like a drift
    if times is not None:
        axes.invert_xaxis()
    add_legend(axes)
    return as_png(figure)


def norm_histogram(norms: Mapping[str, Real[np.ndarray, "..."]], bins: int = 60) -> bytes:
    """Distributions of token norms over radius: one outline for each name, each of height 1."""
    figure = Figure(figsize=(6.2, 3.0), dpi=DPI, layout="constrained")
    axes = panel_axes(figure, (1, 1, 1), "", "token norm / radius", "relative frequency")
    together = np.concatenate([np.ravel(v) for v in norms.values()])
    edges = np.linspace(min(together.min(), 0.9), max(together.max(), 1.1), bins + 1)
    for (name, values), colour in zip(norms.items(), COLOURS, strict=False):
        counts, _ = np.histogram(np.ravel(values), edges)
        axes.stairs(counts / counts.max(), edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(counts / counts.max(), edges, color=colour, linewidth=1.5, label=name)
    axes.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    add_legend(axes)
    return as_png(figure)


def curve(
    x: Real[np.ndarray, " points"], y: Real[np.ndarray, " points"], xlabel: str, ylabel: str
) -> bytes:
    """One line through the points (x, y), each marked."""
    figure = Figure(figsize=(6.2, 3.0), dpi=DPI, layout="constrained")
    axes = panel_axes(figure, (1, 1, 1), "", xlabel, ylabel)
    axes.plot(x, y, color=COLOURS[0], linewidth=1.8, marker="o", markersize=3.5)
    return as_png(figure)


def score_curves(
    xlabel: str,
    x: Sequence,
    lines: Mapping[str, Mapping[str, Sequence[float]]],
    real_data: Mapping[str, float | None],
) -> bytes:
    """One panel a metric: its values along x, one line a name; dashed, that of real images.

    x: numbers or words. lines: {name: {metric: values along x}}, without legend if there is one.
    """
    metrics = list(real_data)
    rows = -(-len(metrics) // 2)
    figure = Figure(figsize=(8.4, 2.6 * rows), dpi=DPI, layout="constrained")
    for i, metric in enumerate(metrics, 1):
        axes = panel_axes(figure, (rows, 2, i), metric.replace("_", " "), xlabel, "")
        for (name, values), colour in zip(lines.items(), itertools.cycle(COLOURS), strict=False):
            axes.plot(
                x, values[metric], color=colour, lw=1.8, marker="o", markersize=3.5, label=name
            )
        if real_data[metric] is not None:
            axes.axhline(real_data[metric], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        if len(lines) > 1 and i == 1:
            add_legend(axes)
    return as_png(figure)


def panel_axes(
    figure: Figure, place: tuple[int, int, int], title: str, xlabel: str, ylabel: str
) -> Axes:
    """Axes at a place of the figure, (rows, columns, number), in the style of all plots here."""
    axes = figure.add_subplot(*place)
    axes.set_facecolor("none")
    axes.set_title(title, color=INK, fontsize=9.5, loc="left")
    axes.set_xlabel(xlabel, color=INK, fontsize=8.5)
    axes.set_ylabel(ylabel, color=INK, fontsize=8.5)
    axes.tick_params(which="both", colors=INK, labelsize=8, length=0)
    axes.grid(color=INK, alpha=0.22, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
    axes.margins(x=0.02)
    return axes


def add_legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)


def as_png(figure: Figure) -> bytes:
    """On a transparent ground."""
    figure.patch.set_alpha(0.0)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
