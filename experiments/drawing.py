"""How every figure looks and is saved: colours, marks, axes, labels, files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from astray.experiments.files import whole

# Okabe and Ito's colours: told apart with any colour vision
COLOURS = dict(intended="#0072B2", proxy="#D55E00", both="#CC79A7", neither="#C4C4C4", invalid="#333333")
GREY, INK, FRAME, GRID = "#767676", "#333333", "#B0B0B0", "#E8E8E8"
WIDTH = 8.0  # inches, about the width of a printed page, where letters of 8 points stay near that size
SHAPES = "osDv^PX*"  # of arms, so that colour is not needed to tell them apart
FOOT = 0.22  # inches


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write `path`.png (160 dots per inch) and `path`.svg, each whole or not at all.

    The same figure gives the same bytes: no date, and identifiers seeded by the file's name.

    Args:
        figure: what to draw.
        path: the file without its ending; its folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": path.name}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            with whole(path.with_name(f"{path.name}.{ending}")) as temporary:
                figure.savefig(temporary, format=ending, dpi=160, metadata=metadata)


def sign(figure: Figure, command: str) -> None:
    """Add a line at the foot of a figure: the command that draws it again."""
    width, height = figure.get_size_inches() + np.array([0, FOOT])
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained", rect=(0, FOOT / height, 1, 1 - FOOT / height))
    # a letter of this font is 0.6 times as wide as it is high: a long command is written smaller, never cut
    size = min(7.0, 72 * (width - 0.2) / (0.61 * len(command)))
    figure.text(0.1 / width, 0.06 / height, command, family="monospace", fontsize=size, color=GREY)


def style(axes: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Quiet axes: two spines, small labels, a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    axes.tick_params(labelsize=8, color=FRAME, labelcolor=INK)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def marker(mode: object, colour: str, **changes: Any) -> dict[str, Any]:
    """Sampled is a filled dot, greedy a hollow diamond."""
    shape: dict[str, Any] = dict(marker="o") if mode == "sampled" else dict(marker="D", markerfacecolor="white")
    return dict(color=colour, linestyle="none", markersize=4.5, markeredgewidth=1.0, zorder=3) | shape | changes


def title(rows: pd.DataFrame, by: Sequence[str]) -> str:
    """The arm of these rows, and, where `by` has it, the train shift."""
    first = rows.iloc[0]
    shift = f"train shift {first['train_shift']:g}" if "train_shift" in by else ""
    return ", ".join(part for part in (str(first["arm"]), shift) if part and part != "train shift nan")


def label_lines(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write labels right of the axes at their lines' heights, moved apart as little as it takes."""
    labels = sorted(labels)
    heights = np.array([height for height, _, _ in labels])
    apart = 0.1 * np.arange(len(labels))
    # the closest heights in the least-squares sense that are at least this far apart
    places = isotonic_regression(heights - apart).x + apart
    for place, (_, text, colour) in zip(places, labels, strict=True):
        axes.annotate(text, (1.02, place), xycoords=axes.get_yaxis_transform(), color=colour, fontsize=8, va="center")


def short(value: float) -> str:
    """A number for a tick: 512, 4.1k, 102k."""
    if value < 1000:
        return f"{value:g}"
    return f"{value / 1000:.{int(value < 10_000)}f}k"
