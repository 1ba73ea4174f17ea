"""Maps: where a policy goes on one level, what it prefers to do in each cell, and what it expects to earn there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from astray.experiments.drawing import COLOURS, FRAME, GREY, GRID, INK, WIDTH

KINDS = dict(visits="visits", probabilities="preferred action", values="value estimate")
SHADES = dict(visits=("Purples", "steps per episode"), values=("Greens", "discounted reward"))
# an arrow of length 1 to the east, and what stands for staying
ARROW = np.array([(0, 0.09), (0.5, 0.09), (0.5, 0.28), (1, 0), (0.5, -0.28), (0.5, -0.09), (0, -0.09)])
DOT = 0.4 * np.array([(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 24)])
WALL: dict[str, Any] = dict(facecolor="white", edgecolor=GREY, hatch="/////", linewidth=0.5)

Entry = Mapping[str, Any]


def plot_maps(entries: Sequence[Entry], names: Mapping[str, str], intended: str, proxy: str) -> Figure:
    """Maps of visits, actions and values: a line for each entry, two lines side by side where there are many.

    A shade means the same in every map of a kind. An arrow's area is its action's probability, and the likeliest is
    dark.

    Args:
        entries: as `maps.json` of a run holds them.
        names: glyph to what lies there; a goal's glyph has the goal's colour.
        intended: the intended goal's name.
        proxy: the proxy goal's name.
    """
    kinds = [kind for kind in KINDS if any(entry.get(kind) for entry in entries)]
    scales = {kind: _scale(entries, kind) for kind in kinds if kind in SHADES}
    colours = {intended: COLOURS["intended"], proxy: COLOURS["proxy"]}
    glyphs = {glyph: colours.get(names.get(glyph, ""), INK) for entry in entries for glyph in entry["glyphs"].values()}
    figure, lines, bars = _grid(len(entries), kinds)
    for entry, line in zip(entries, lines, strict=True):
        for axes, kind in zip(line, kinds, strict=True):
            _draw_room(axes, entry)
            if not entry.get(kind):
                axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", fontsize=8, color=GREY)
            elif kind in scales:
                shades = np.full(entry["size"] ** 2, np.nan)
                shades[[int(cell) for cell in entry[kind]]] = list(entry[kind].values())
                axes.imshow(shades.reshape(entry["size"], -1), cmap=SHADES[kind][0], norm=scales[kind])
            else:
                _draw_arrows(axes, entry)
            _draw_glyphs(axes, entry, glyphs)
            if axes.get_subplotspec().is_first_row():  # pyright: ignore[reportOptionalMemberAccess]
                axes.set_title(KINDS[kind], fontsize=8, color=INK)
        line[0].set_ylabel(_title(entry, entries), fontsize=8, color=INK)
    for kind, scale in scales.items():
        bar = figure.colorbar(ScalarMappable(scale, SHADES[kind][0]), cax=bars[kind], orientation="horizontal")
        bar.set_label(SHADES[kind][1], fontsize=7.5, color=INK)
        bar.ax.tick_params(labelsize=7, color=FRAME, labelcolor=INK)
        bar.ax.locator_params(nbins=3)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    _explain(figure, entries, names, glyphs)
    return figure


def _grid(entries: int, kinds: list[str]) -> tuple[Figure, list[list[Axes]], dict[str, Axes]]:
    """A figure, the axes of each entry, and thin axes for colour bars below the first block."""
    blocks = min(2, entries)
    depth = -(-entries // blocks)
    side = (WIDTH - 0.5 * blocks) / (blocks * len(kinds))  # inches of a map
    figure = Figure((WIDTH, 1.2 + depth * side), layout="constrained")
    widths = [*[1.0] * len(kinds), 0.1] * blocks
    heights = [1.0] * depth + [0.08 / side]
    grid = figure.subplots(depth + 1, len(widths), squeeze=False, width_ratios=widths, height_ratios=heights)
    starts = [block * (len(kinds) + 1) for block in range(blocks)]
    lines = [list(grid[line, start : start + len(kinds)]) for start in starts for line in range(depth)][:entries]
    bars = {kind: axes for kind, axes in zip(kinds, grid[-1], strict=False) if kind in SHADES}
    for unused in set(grid.flat) - {axes for line in lines for axes in line} - set(bars.values()):
        unused.remove()
    return figure, lines, bars


def _scale(entries: Sequence[Entry], kind: str) -> Normalize:
    """The shades of a kind of map, the same in every entry; visits on a root scale, as some cells have nearly all."""
    numbers = [number for entry in entries for number in (entry.get(kind) or {}).values()]
    return PowerNorm(0.5, 0, max(numbers)) if kind == "visits" else Normalize(min(numbers), max(numbers))


def _draw_room(axes: Axes, entry: Entry) -> None:
    """The cells and walls of a room, without scales."""
    size = entry["size"]
    borders = np.arange(size + 1) - 0.5
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.set_xticks(borders, [""] * len(borders))
    axes.set_yticks(borders, [""] * len(borders))
    axes.tick_params(length=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_color(FRAME)
    for row, column in (divmod(cell, size) for cell in entry["walls"]):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **WALL))


def _draw_arrows(axes: Axes, entry: Entry) -> None:
    """An arrow per action and cell, its area the action's probability; a dot where an action stays."""
    arrows = []
    for cell, probabilities in entry["probabilities"].items():
        row, column = divmod(int(cell), entry["size"])
        for (south, east), probability in zip(entry["arrows"], probabilities, strict=True):
            turn = np.array([[east, south], [-south, east]]) if south or east else None
            shape = DOT if turn is None else ARROW @ (turn / np.hypot(south, east))
            likeliest = probability == max(probabilities)
            arrows.append((likeliest, 0.48 * np.sqrt(probability) * shape + (column, row)))
    arrows.sort(key=lambda arrow: arrow[0])  # the likeliest on top
    colours = [INK if likeliest else FRAME for likeliest, _ in arrows]
    axes.add_collection(PolyCollection([shape for _, shape in arrows], facecolors=colours, linewidths=0))


def _draw_glyphs(axes: Axes, entry: Entry, colours: Mapping[str, str]) -> None:
    for cell, glyph in entry["glyphs"].items():
        row, column = divmod(int(cell), entry["size"])
        outline = [withStroke(linewidth=2.5, foreground="white")]
        text = axes.text(column, row, glyph, color=colours[glyph], fontsize=9, fontweight="bold", path_effects=outline)
        text.set(ha="center", va="center")


def _title(entry: Entry, entries: Sequence[Entry]) -> str:
    """What the entry is of: arm and train shift, and what else the entries differ in."""
    lines = [str(entry["arm"]), f"train shift {entry['train_shift']:g}"]
    lines += [str(entry[name]) for name in ("level_class",) if len({each[name] for each in entries}) > 1]
    return "\n".join(lines)


def _explain(figure: Figure, entries: Sequence[Entry], names: Mapping[str, str], colours: Mapping[str, str]) -> None:
    """One line above the maps: what the glyphs and the arrows mean."""
    handles: list[Any] = [
        Line2D([], [], linestyle="none", marker=f"${glyph}$", color=colour, markersize=6, label=names.get(glyph, glyph))
        for glyph, colour in colours.items()
    ]
    if any(entry["walls"] for entry in entries):
        handles.append(Patch(label="wall", **WALL))
    handles.append(
        Line2D([], [], linestyle="none", marker=r"$\rightarrow$", color=INK, markersize=10, label="likeliest action")
    )
    handles.append(
        Line2D([], [], linestyle="none", marker=r"$\rightarrow$", color=FRAME, markersize=10, label="other actions")
    )
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
