"""How every figure looks and is saved: colours, marks, axes, labels, files."""

from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from astray.experiments.files import whole

# Okabe and Ito's colours: told apart with any colour vision, and in grey print
COLOURS = dict(intended="#0072B2", proxy="#D55E00", both="#CC79A7", neither="#C4C4C4", invalid="#333333")
GREY, INK, FRAME, GRID = "#767676", "#333333", "#B0B0B0", "#E8E8E8"
WIDTH = 9.2  # inches, the width of the page


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


def style(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Quiet axes: two spines, small labels, a light grid along one direction."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    axes.tick_params(labelsize=8, color=FRAME, labelcolor=INK)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def marker(mode: object, colour: str, **changes: Any) -> dict[str, Any]:
    """Sampled is a filled dot, greedy a hollow diamond."""
    shape: dict[str, Any] = dict(marker="o") if mode == "sampled" else dict(marker="D", markerfacecolor="white")
    return dict(color=colour, linestyle="none", markersize=4.5, markeredgewidth=1.0, zorder=3) | shape | changes


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
