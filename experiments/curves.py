"""Misgeneralization curves: outcome rates on distinguishing levels against shift, steps or margin.

Every seed is a dot, the line is the mean over seeds, the bar or band its interval. Figures are made without
pyplot, so they leave no global state behind and need no display.
"""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from astray.experiments.drawing import COLOURS, GREY, INK, WIDTH, label_lines, marker, short, style
from astray.experiments.metrics import (
    OUTCOMES,
    intended_first,
    last_checkpoint,
    outcome_rates,
    over_seeds,
    proxy_first,
    success,
)

Axis = Literal["train_shift", "step", "margin"]

FIRST = dict(intended=intended_first, proxy=proxy_first)
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
        ValueError: `x` is none of the three axes.
    """
    if x not in AXIS_LABELS:
        raise ValueError(f"x is one of {', '.join(AXIS_LABELS)}, not {x!r}")
    rows = rows.assign(**{column: value for column, value in ABSENT.items() if column not in rows})
    points = _points(rows.loc[rows["agent"] == "trained"], x)
    if points.loc[points["level_class"] == "distinguishing", "x"].nunique() < 2:
        return _plot_outcomes(rows, intended, proxy)
    facets = ["arm"] if x == "train_shift" else ["arm", "train_shift"]
    panels = [panel for _, panel in points.groupby(facets, dropna=False, observed=True)]
    names = dict(intended=f"{intended} first", proxy=f"{proxy} first")
    figure, grid, strips = _grid(len(panels), with_strips=x == "train_shift" and _has_references(rows))
    for number, (axes, panel) in enumerate(zip(grid, panels, strict=True), start=1):
        labels = _draw_panel(axes, panel, x, names) + _draw_random(axes, rows)
        _scale(axes, np.unique(panel["x"]), x)
        axes.set_title(_title(panel, facets), loc="left", fontsize=9, color=INK)
        if number % min(COLUMNS, len(panels)) == 0:
            label_lines(axes, labels)
    for strip, axes, panel in zip(strips, grid, panels, strict=False):
        _draw_references(strip, rows.loc[rows["arm"].isin(panel["arm"]) | (rows["seed"] < 0)])
        strip.set_title(axes.get_title("left"), loc="left", fontsize=9, color=INK).set_in_layout(False)
        axes.set_title(" ", loc="left", fontsize=9)  # keeps the height: the title runs on from the strip
    if strips:
        for axes in grid:
            axes.set_xlabel(AXIS_LABELS[x], fontsize=9, color=INK)
    else:
        figure.supxlabel(AXIS_LABELS[x], fontsize=9, color=INK)
    _explain_marks(figure, points, x)
    return figure


def _plot_outcomes(rows: pd.DataFrame, intended: str, proxy: str) -> Figure:
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
        axes.bar_label(
            bars,
            texts,
            label_type="center",
            fontsize=8,
            color="black" if outcome in ("both", "neither") else "white",
        )
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


def plot_modes(rows: pd.DataFrame, intended: str = "intended goal", proxy: str = "proxy goal") -> Figure:
    """Sampled against greedy actions on distinguishing levels: one line per arm and train shift."""
    rows = last_checkpoint(rows.loc[(rows["agent"] == "trained") & (rows["level_class"] == "distinguishing")])
    cells = [cell for _, cell in rows.groupby(["arm", "train_shift"], dropna=False, observed=True)]
    figure = Figure((WIDTH, 1.1 + 0.36 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for place, cell in enumerate(cells):
        for outcome, shift in (("intended", -0.16), ("proxy", 0.16)):
            means = over_seeds(cell, ["mode"], FIRST[outcome]).set_index("mode")["mean"]
            means = means.sort_index(ascending=False)  # sampled first, so that the hollow marker lies on top
            axes.plot(means, [place + shift] * len(means), color=COLOURS[outcome], linewidth=1.2)
            for mode, mean in means.items():
                seeds = outcome_rates(cell.loc[cell["mode"] == mode], ["seed"])[outcome]
                small = marker(mode, COLOURS[outcome], markersize=3, alpha=0.45, zorder=2)
                axes.plot(seeds, [place + shift] * len(seeds), **small)
                axes.plot([mean], [place + shift], **marker(mode, COLOURS[outcome], markersize=6))
    axes.set_yticks(range(len(cells)), [_title(cell, ["arm", "train_shift"]) for cell in cells])
    axes.invert_yaxis()
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("share of episodes on distinguishing levels", fontsize=9, color=INK)
    style(axes, grid="x")
    names = dict(intended=f"{intended} first", proxy=f"{proxy} first")
    handles = [Line2D([], [], color=COLOURS[outcome], label=name) for outcome, name in names.items()]
    handles += [Line2D([], [], label=mode, **marker(mode, INK)) for mode in ("sampled", "greedy")]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def _points(trained: pd.DataFrame, x: Axis) -> pd.DataFrame:
    """The rows of trained agents that a curve shows, with their place on the axis in a column "x"."""
    if x == "step":
        # earlier checkpoints may be tested on fewer levels than the last: compare on those that all share
        cell = ["arm", "train_shift"]
        checkpoints = trained.groupby([*cell, "level"], dropna=False, observed=True)["step"].transform("nunique")
        shared = checkpoints == checkpoints.groupby([trained[name] for name in cell], dropna=False).transform("max")
        return trained.loc[shared].assign(x=trained["step"])
    last = last_checkpoint(trained)
    if x == "train_shift":
        return last.assign(x=last["train_shift"]).dropna(subset="x")
    last = last.loc[last["level_class"] == "distinguishing"].dropna(subset="margin")
    if last["margin"].nunique() <= MARGIN_BINS:
        return last.assign(x=last["margin"])
    bins = pd.qcut(last["margin"], MARGIN_BINS, duplicates="drop")
    return last.assign(x=last.groupby(bins, observed=True)["margin"].transform("mean"))


def _draw_panel(axes: Axes, panel: pd.DataFrame, x: Axis, names: dict[str, str]) -> list[tuple[float, str, str]]:
    """Lines, intervals and dots of one panel; returns (height, text, colour) of each line's label."""
    ambiguous = panel.loc[(panel["level_class"] == "ambiguous") & (panel["mode"] == "sampled")]
    if len(ambiguous):
        means = over_seeds(ambiguous, ["x"], success)
        axes.plot(means["x"], means["mean"], color=GREY, linewidth=0.9)
    distinguishing = panel.loc[panel["level_class"] == "distinguishing"]
    labels = []
    for outcome, name in names.items():
        colour = COLOURS[outcome]
        # sampled actions carry line and intervals where both modes are there
        main, *others = sorted(set(distinguishing["mode"]), reverse=True)
        rows = distinguishing.loc[distinguishing["mode"] == main]
        means = over_seeds(rows, ["x"], FIRST[outcome])
        axes.plot(means["x"], means["mean"], color=colour, linewidth=1.8)
        if x == "train_shift":
            axes.vlines(means["x"], means["low"], means["high"], color=colour, linewidth=1.2)
            axes.plot(means["x"], means["mean"], "_", color=colour, markersize=11, markeredgewidth=1.8)
        else:
            axes.fill_between(means["x"], means["low"], means["high"], color=colour, alpha=0.18, linewidth=0)
        labels.append((means["mean"].iloc[-1], name, colour))
        seeds = outcome_rates(rows, ["x", "seed"])[outcome].reset_index()
        axes.plot(seeds["x"], seeds[outcome], **marker(main, colour, markersize=3.5, alpha=0.55))
        for mode in others:
            means = over_seeds(distinguishing.loc[distinguishing["mode"] == mode], ["x"], FIRST[outcome])
            axes.plot(means["x"], means["mean"], **marker(mode, colour))
    return labels


def _has_references(rows: pd.DataFrame) -> bool:
    return bool(set(rows["agent"]) & {"random", "state-blind"})


def _draw_references(axes: Axes, rows: pd.DataFrame) -> None:
    """What needs no learning, as columns of dots; state-blind and untrained are those of the lowest train shift."""
    rows = rows.loc[(rows["level_class"] == "distinguishing") & (rows["mode"] == "sampled")]
    own = rows["train_shift"].isna() | (rows["train_shift"] == rows["train_shift"].min())
    untrained = own & (rows["agent"] == "trained") & (rows["step"] == 0)
    references = {
        "random": rows.loc[rows["agent"] == "random"],
        "untrained": rows.loc[untrained],
        "state-blind": rows.loc[own & (rows["agent"] == "state-blind")],
    }
    experts = sorted({agent for agent in rows["agent"] if agent.startswith("expert")})
    references |= {agent: rows.loc[rows["agent"] == agent] for agent in experts}
    for place, reference in enumerate(references.values()):
        for outcome, shift in (("intended", -0.15), ("proxy", 0.15)):
            seeds = outcome_rates(reference, ["seed"])[outcome]
            axes.plot([place + shift] * len(seeds), seeds, **marker("sampled", COLOURS[outcome]))
    axes.set_xticks(range(len(references)), list(references), rotation=90)
    axes.set_xlim(-0.5, len(references) - 0.5)


def _draw_random(axes: Axes, rows: pd.DataFrame) -> list[tuple[float, str, str]]:
    """The random agent's rates as dashed lines, with their labels."""
    random = rows.loc[(rows["agent"] == "random") & (rows["level_class"] == "distinguishing")]
    if random.empty:
        return []
    for outcome, metric in FIRST.items():
        axes.axhline(metric(random), color=COLOURS[outcome], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    return [(metric(random), "random", COLOURS[outcome]) for outcome, metric in FIRST.items()]


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


def _scale(axes: Axes, ticks: np.ndarray, x: Axis) -> None:
    """A logarithmic axis that shows 0 for train shifts, and for steps that span more than a decade."""
    positive = ticks[ticks > 0]
    if x == "margin" or (x == "step" and (len(positive) == 0 or positive[-1] <= 16 * positive[0])):
        axes.locator_params(axis="x", nbins=5)
    else:
        if len(positive):
            axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
            axes.set_xlim(-0.3 * positive[0], 1.25 * positive[-1])
        shown = ticks[:: -max(1, len(ticks) // 5)]  # from the last, which matters most
        axes.set_xticks(shown, [short(tick) for tick in shown])
        axes.set_xticks([], minor=True)
    if x == "step":
        axes.xaxis.set_major_formatter(lambda value, _: short(value))


def _title(rows: pd.DataFrame, by: list[str]) -> str:
    first = rows.iloc[0]
    shift = f"train shift {first['train_shift']:g}" if "train_shift" in by else ""
    return ", ".join(part for part in (str(first["arm"]), shift) if part and part != "train shift nan")


def _explain_marks(figure: Figure, points: pd.DataFrame, x: Axis) -> None:
    """One line above the panels that says what each mark is."""
    band = x != "train_shift"
    handles = [
        Line2D([], [], label="a seed", **marker("sampled", INK)),
        Line2D([], [], color=INK, linewidth=1.8, label="mean over seeds"),
        Line2D([], [], color=INK, linewidth=7 if band else 1.2, alpha=0.2 if band else 1, label="95% interval"),
    ]
    if len(set(points["mode"])) > 1:
        handles.append(Line2D([], [], label="greedy actions, mean", **marker("greedy", INK)))
    if "ambiguous" in set(points["level_class"]):
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, label="success on ambiguous levels"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
