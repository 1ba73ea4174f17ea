"""Misgeneralization curves: outcome rates on distinguishing levels against shift, steps or margin.

Every seed is a dot, the line is the mean over seeds, the bar or band its interval; where seeds fall into groups, each
group has a dash with its share of the seeds, and there is no mean. Figures are made without pyplot, so they leave no
global state behind and need no display.
"""

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from astray.envs import InputError
from astray.experiments.drawing import COLOURS, GREY, INK, WIDTH, label_lines, marker, short, style, title
from astray.experiments.metrics import (
    OUTCOMES,
    Metric,
    intended_first,
    last_checkpoint,
    outcome_rates,
    over_seeds,
    proxy_first,
    references,
    success,
)

Axis = Literal["train_shift", "step", "margin"]

AXES: tuple[Axis, ...] = get_args(Axis)
FIRST: dict[str, Metric] = dict(intended=intended_first, proxy=proxy_first)
AXIS_LABELS = dict(train_shift="train shift", step="training steps", margin="margin")
COLUMNS = 3
MARGIN_BINS = 6
# what the rows of a single evaluated model may leave out
ABSENT = dict(arm="", agent="trained", train_shift=np.nan, seed=0, step=0, mode="sampled")


def plot_curve(
    rows: pd.DataFrame, x: Axis = "train_shift", intended: str = "intended goal", proxy: str = "proxy goal"
) -> Figure:
    """The misgeneralization curve: a panel per arm against train shift, else a panel per arm and train shift.

    Train shift and margin take each seed's last checkpoint, training steps the levels that all checkpoints
    share. Where the rows have a single value of `x`, as those of one evaluated model do, the figure shows the
    share of each outcome per level class instead.

    Args:
        rows: episodes, as `evaluate` gives them.
        x: the horizontal axis.
        intended: the intended goal's name in the labels.
        proxy: the proxy goal's name in the labels.

    Raises:
        InputError: `x` is none of the three axes.
    """
    rows = rows.assign(**{column: value for column, value in ABSENT.items() if column not in rows})
    points = curve_points(rows.loc[rows["agent"] == "trained"], x)
    if points.loc[points["level_class"] == "distinguishing", "x"].nunique() < 2:
        return plot_outcomes(rows, intended, proxy)
    facets = ["arm"] if x == "train_shift" else ["arm", "train_shift"]
    panels = [panel for _, panel in points.groupby(facets, dropna=False, observed=True)]
    names = dict(intended=f"{intended} first", proxy=f"{proxy} first")
    with_strips = x == "train_shift" and bool(set(rows["agent"]) & {"random", "state-blind"})
    figure, grid, strips = _grid(len(panels), with_strips)
    split = False
    for number, (axes, panel) in enumerate(zip(grid, panels, strict=True), start=1):
        labels, is_split = _draw_panel(axes, panel, x, names)
        split |= is_split
        labels += _draw_random(axes, rows)
        scale(axes, np.unique(panel["x"]), x)
        axes.set_title(title(panel, facets), loc="left", fontsize=9, color=INK)
        if number > COLUMNS * ((len(panels) - 1) // COLUMNS):
            axes.set_xlabel(AXIS_LABELS[x], fontsize=9, color=INK)
        if number % min(COLUMNS, len(panels)) == 0:
            label_lines(axes, labels)
    for strip, axes, panel in zip(strips, grid, panels, strict=False):
        _draw_references(strip, rows.loc[rows["arm"].isin(panel["arm"]) | (rows["seed"] < 0)])
        strip.set_title(axes.get_title("left"), loc="left", fontsize=9, color=INK).set_in_layout(False)
        axes.set_title(" ", loc="left", fontsize=9)  # keeps the height: the title runs on from the strip
    _explain_marks(figure, points, x, split)
    return figure


def plot_outcomes(rows: pd.DataFrame, intended: str = "intended goal", proxy: str = "proxy goal") -> Figure:
    """Shares of outcomes as a bar per level class, and per agent, arm, train shift and mode that differ."""
    rows = last_checkpoint(rows)
    apart = [name for name in ("agent", "arm", "train_shift", "mode") if len(rows[name].drop_duplicates()) > 1]
    by = ["level_class", *apart]
    rates, counts = outcome_rates(rows, by), rows.groupby(by, dropna=False, observed=True).size()
    names = [f"{intended} first", f"{proxy} first", "both at once", "neither", "invalid"]
    figure = Figure((WIDTH, 1.1 + 0.4 * len(rates)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(rates))
    for outcome, name in zip(OUTCOMES, names, strict=True):
        widths = rates[outcome].to_numpy()
        bars = axes.barh(range(len(rates)), widths, left=left, height=0.62, color=COLOURS[outcome], label=name)
        # a share is written only where it fits into its bar
        texts = [f"{width:.0%}" if width >= 0.045 else "" for width in widths]
        ink = "black" if outcome in ("both", "neither") else "white"
        axes.bar_label(bars, texts, label_type="center", fontsize=8, color=ink)
        left += widths
    keys = [key if isinstance(key, tuple) else (key,) for key in rates.index]
    labels = [f"{', '.join(map(str, key))} (n = {count})" for key, count in zip(keys, counts, strict=True)]
    axes.set_yticks(range(len(rates)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of episodes", fontsize=9, color=INK)
    axes.tick_params(labelsize=8, length=0, colors=INK)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside upper left", ncols=len(OUTCOMES), frameon=False, fontsize=8, handlelength=1.0)
    return figure


def on_shared_levels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows on levels that all checkpoints of their arm and train shift were tested on."""
    cell = ["arm", "train_shift"]
    checkpoints = rows.groupby([*cell, "level"], dropna=False, observed=True)["step"].transform("nunique")
    return rows.loc[checkpoints == checkpoints.groupby([rows[name] for name in cell], dropna=False).transform("max")]


def curve_points(trained: pd.DataFrame, x: Axis) -> pd.DataFrame:
    """The rows of trained agents that a curve shows, with their place on the axis in a column "x".

    Raises:
        InputError: `x` is none of the three axes.
    """
    if x not in AXES:
        raise InputError(f"x={x!r} must be one of {', '.join(AXES)}")
    if x == "step":
        shared = on_shared_levels(trained)
        return shared.assign(x=shared["step"])
    last = last_checkpoint(trained)
    if x == "train_shift":
        return last.assign(x=last["train_shift"]).dropna(subset="x")
    last = last.loc[last["level_class"] == "distinguishing"].dropna(subset="margin")
    if last["margin"].nunique() <= MARGIN_BINS:
        return last.assign(x=last["margin"])
    bins = pd.qcut(last["margin"], MARGIN_BINS, duplicates="drop")
    return last.assign(x=last.groupby(bins, observed=True)["margin"].transform("mean"))


def draw_means(axes: Axes, means: pd.DataFrame, x: Axis, row: int = 1, **look: Any) -> bool:
    """Line and intervals; of seeds that fall into groups, a dash and share of each group in their place.

    Args:
        axes: where to draw.
        means: a table of `over_seeds` by "x".
        x: the axis, which decides between bars and a band.
        row: shares are written that many rows of text away from their dash.
        **look: of the line.

    Returns:
        Whether some seeds fall into groups.
    """
    colour, place = look["color"], look.get("transform", axes.transData)
    split = means["modes"].map(len) > 1
    mean, low, high = (means[name].mask(split) for name in ("mean", "low", "high"))
    axes.plot(means["x"], mean, linewidth=1.8, **look)
    if x == "train_shift":
        axes.vlines(means["x"], low, high, color=colour, linewidth=1.2, transform=place)
    else:
        axes.fill_between(means["x"], low, high, color=colour, alpha=0.18, linewidth=0)
    outline = [withStroke(linewidth=2, foreground="white")]
    written: list[str] = []
    for at, modes in means.loc[split, ["x", "modes"]].itertuples(index=False):
        shares = [f"{mode.n}/{sum(each.n for each in modes)}" for mode in modes]
        for mode, share in zip(modes, shares, strict=True):
            axes.plot([at], [mode.mean], "_", color=colour, markersize=9, markeredgewidth=1.8, transform=place)
            if x == "train_shift" or shares != written:  # along the steps, the same groups are not counted again
                inwards = (-10 if mode.mean > 0.5 else 10) * row
                offset: Any = dict(xycoords=place, xytext=(0, inwards), textcoords="offset points", zorder=4)
                text = axes.annotate(share, (at, mode.mean), color=colour, fontsize=7.5, **offset)
                text.set(ha="center", va="center", path_effects=outline)
        written = shares
    return bool(split.any())


def _draw_panel(
    axes: Axes, panel: pd.DataFrame, x: Axis, names: dict[str, str]
) -> tuple[list[tuple[float, str, str]], bool]:
    """One panel; returns (height, text, colour) of each line's label, and whether some seeds fall into groups."""
    ambiguous = panel.loc[(panel["level_class"] == "ambiguous") & (panel["mode"] == "sampled")]
    if len(ambiguous):
        means = over_seeds(ambiguous, ["x"], success)
        axes.plot(means["x"], means["mean"], color=GREY, linewidth=0.9)
    distinguishing = panel.loc[panel["level_class"] == "distinguishing"]
    labels, split = [], False
    for row, outcome in enumerate(FIRST, start=1):
        colour = COLOURS[outcome]
        # sampled actions carry line and intervals where both modes are there
        main, *others = sorted(set(distinguishing["mode"]), reverse=True)
        rows = distinguishing.loc[distinguishing["mode"] == main]
        means = over_seeds(rows, ["x"], FIRST[outcome])
        look: dict[str, Any] = dict(color=colour)
        if x == "train_shift":
            look |= dict(marker="_", markersize=11, markeredgewidth=1.8)
        split |= draw_means(axes, means, x, row, **look)
        largest = max(means["modes"].iloc[-1], key=lambda mode: mode.n)
        labels.append((largest.mean, names[outcome], colour))
        seeds = outcome_rates(rows, ["x", "seed"])[outcome].reset_index()
        axes.plot(seeds["x"], seeds[outcome], **marker(main, colour, markersize=3.5, alpha=0.55))
        for mode in others:
            means = over_seeds(distinguishing.loc[distinguishing["mode"] == mode], ["x"], FIRST[outcome])
            groups = means.explode("modes")
            axes.plot(groups["x"], [group.mean for group in groups["modes"]], **marker(mode, colour))
    return labels, split


def _draw_references(axes: Axes, rows: pd.DataFrame) -> None:
    """What needs no learning, as columns of dots."""
    rows = references(rows.loc[(rows["level_class"] == "distinguishing") & (rows["mode"] == "sampled")])
    experts = sorted({agent for agent in rows["agent"] if agent.startswith("expert")})
    agents = ["random", "untrained", "state-blind", *experts]
    for place, agent in enumerate(agents):
        for outcome, shift in (("intended", -0.15), ("proxy", 0.15)):
            seeds = outcome_rates(rows.loc[rows["agent"] == agent], ["seed"])[outcome]
            axes.plot([place + shift] * len(seeds), seeds, **marker("sampled", COLOURS[outcome], markersize=3.5))
    axes.set_xticks(range(len(agents)), agents, rotation=90)
    axes.set_xlim(-0.5, len(agents) - 0.5)


def _draw_random(axes: Axes, rows: pd.DataFrame) -> list[tuple[float, str, str]]:
    """The random agent's rates as dashed lines, with their labels."""
    random = rows.loc[(rows["agent"] == "random") & (rows["level_class"] == "distinguishing")]
    if random.empty:
        return []
    rates = {COLOURS[outcome]: float(metric(random).mean()) for outcome, metric in FIRST.items()}
    for colour, rate in rates.items():
        axes.axhline(rate, color=colour, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    return [(rate, "random", colour) for colour, rate in rates.items()]


def _grid(panels: int, with_strips: bool) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure with axes for each panel, left to right, and a narrow strip left of each where asked for."""
    columns = min(COLUMNS, panels)
    lines = -(-panels // columns)
    height = 0.9 + (2.9 if lines == 1 else 2.1 * lines)
    figure = Figure((WIDTH, height), layout="constrained")
    ratios = [1.5, 3.1] * columns if with_strips else [1.0] * columns
    axes = figure.subplots(lines, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)
    for each in axes.flat:
        style(each, grid="y")
    for each in axes[:, 0]:
        each.set_ylabel("share of episodes", fontsize=9, color=INK)
    axes[0, 0].set_ylim(-0.03, 1.03)
    axes[0, 0].set_yticks([0, 0.25, 0.5, 0.75, 1])
    main = list(axes[:, 1::2].flat if with_strips else axes.flat)
    strips = list(axes[:, 0::2].flat) if with_strips else []
    for unused in main[panels:] + strips[panels:]:
        unused.set_visible(False)
    return figure, main[:panels], strips[:panels]


def scale(axes: Axes, ticks: np.ndarray, x: Axis) -> None:
    """A logarithmic axis that shows 0 for train shifts, and for steps that span more than a decade."""
    positive = ticks[ticks > 0]
    if x == "margin" or (x == "step" and (len(positive) == 0 or positive[-1] <= 16 * positive[0])):
        axes.locator_params(axis="x", nbins=5)
    else:
        if len(positive):
            axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
            axes.set_xlim(-0.3 * positive[0], 1.25 * positive[-1])
        shown = _apart(axes, ticks)
        axes.set_xticks(shown, [short(tick) for tick in shown])
        axes.set_xticks([], minor=True)
    if x == "step":
        axes.xaxis.set_major_formatter(lambda value, _: short(value))


def _apart(axes: Axes, ticks: np.ndarray) -> list[float]:
    """The last tick, which matters most, the first, and those between that leave room for their labels."""
    places = (axes.transScale + axes.transLimits).transform([(tick, 0) for tick in ticks])[:, 0]
    shown = [len(ticks) - 1]
    for number in (0, *range(len(ticks) - 2, 0, -1)):
        if all(abs(places[number] - places[other]) > 0.13 for other in shown):
            shown.append(number)
    return [float(ticks[number]) for number in sorted(shown)]


def _explain_marks(figure: Figure, points: pd.DataFrame, x: Axis, split: bool) -> None:
    """One line above the panels that says what each mark is."""
    handles: list[Any] = [
        Line2D([], [], label="a seed", **marker("sampled", INK)),
        Line2D([], [], color=INK, linewidth=1.8, label="mean"),
        interval_handle(band=x != "train_shift"),
    ]
    if split:
        handles.append(groups_handle())
    if len(set(points["mode"])) > 1:
        handles.append(Line2D([], [], label="greedy, mean", **marker("greedy", INK)))
    if "ambiguous" in set(points["level_class"]):
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, label="success, ambiguous levels"))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8, columnspacing=1.4
    )


def interval_handle(band: bool) -> Patch | Line2D:
    """What stands for an interval in a legend."""
    if band:
        return Patch(color=INK, alpha=0.2, linewidth=0, label="95% interval")
    return Line2D([], [], linestyle="none", marker="|", markersize=9, color=INK, label="95% interval")


def groups_handle() -> Line2D:
    """What stands for a group of seeds in a legend."""
    return Line2D([], [], linestyle="none", marker="_", markersize=9, color=INK, label="3/5 of the seeds")
