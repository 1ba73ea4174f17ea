"""Figures beside the curves: what seeds want, how it comes about, and what explains what they do."""

from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from astray.experiments.curves import FIRST, on_shared_levels
from astray.experiments.drawing import COLOURS, FRAME, GREY, INK, SHAPES, WIDTH, marker, short, style, title
from astray.experiments.metrics import (
    CAPABLE,
    capability,
    last_checkpoint,
    over_seeds,
    per_seed,
    preference,
    proxy_minus_intended,
    references,
)
from astray.experiments.posterior import CANDIDATES, goal_posterior

REFERENCE_SHAPES = {"random": "o", "untrained": "s", "state-blind": "^", "expert": "D"}
GOALS_MAP = LinearSegmentedColormap.from_list("goals", [COLOURS["intended"], "#F7F7F7", COLOURS["proxy"]])
CANDIDATE_COLOURS = dict(
    zip(map(str, CANDIDATES), (COLOURS["intended"], COLOURS["proxy"], "#F0E442", FRAME), strict=True)
)


def plot_modes(rows: pd.DataFrame, intended: str = "intended goal", proxy: str = "proxy goal") -> Figure:
    """Sampled against greedy actions on distinguishing levels: a line per arm and train shift.

    Large marks are means over seeds, or over each of the groups that the seeds fall into.

    Args:
        rows: episodes, as `evaluate` gives them; the last checkpoint of each seed is drawn.
        intended: the intended goal's name in the labels.
        proxy: the proxy goal's name in the labels.
    """
    rows = last_checkpoint(rows.loc[(rows["agent"] == "trained") & (rows["level_class"] == "distinguishing")])
    cells = [cell for _, cell in rows.groupby(["arm", "train_shift"], dropna=False, observed=True)]
    figure = Figure((WIDTH, 1.1 + 0.36 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for place, cell in enumerate(cells):
        for outcome, shift in (("intended", -0.16), ("proxy", 0.16)):
            table = over_seeds(cell, ["mode"], FIRST[outcome])
            groups = table.explode("modes")
            means = [(mode, group.mean) for mode, group in zip(groups["mode"], groups["modes"], strict=True)]
            ends = [mean for _, mean in means]
            axes.plot(ends, [place + shift] * len(ends), color=COLOURS[outcome], linewidth=1.2)
            for mode, mean in sorted(means, reverse=True):  # greedy last, so that the hollow marker lies on top
                seeds = per_seed(cell.loc[cell["mode"] == mode], FIRST[outcome])
                small = marker(mode, COLOURS[outcome], markersize=3, alpha=0.45, zorder=2)
                axes.plot(seeds, [place + shift] * len(seeds), **small)
                axes.plot([mean], [place + shift], **marker(mode, COLOURS[outcome], markersize=6))
    axes.set_yticks(range(len(cells)), [title(cell, ["arm", "train_shift"]) for cell in cells])
    axes.invert_yaxis()
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("share of episodes on distinguishing levels", fontsize=9, color=INK)
    style(axes, grid="x")
    names = dict(intended=f"{intended} first", proxy=f"{proxy} first")
    handles = [Line2D([], [], color=COLOURS[outcome], label=name) for outcome, name in names.items()]
    handles += [Line2D([], [], label=mode, **marker(mode, INK)) for mode in ("sampled", "greedy")]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def plot_preference(rows: pd.DataFrame, intended: str = "intended goal", proxy: str = "proxy goal") -> Figure:
    """Capability against preference on distinguishing levels, sampled actions: a mark per seed.

    A seed that never reaches one goal first has no preference and no mark; the legend counts such seeds.

    Args:
        rows: episodes, as `evaluate` gives them; the last checkpoint of each seed is drawn.
        intended: the intended goal's name in the labels.
        proxy: the proxy goal's name in the labels.
    """
    rows = rows.loc[(rows["level_class"] == "distinguishing") & (rows["mode"] == "sampled")]
    trained = last_checkpoint(rows.loc[rows["agent"] == "trained"])
    arms = dict(zip(trained["arm"].unique(), cycle(SHAPES), strict=False))
    shifts = np.unique(trained["train_shift"].dropna())
    shades = dict(zip(shifts, colormaps["viridis"](np.linspace(0, 0.92, len(shifts))), strict=True))
    figure = Figure((WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    # large marks below small ones, so that none is hidden where seeds of several train shifts agree
    sizes = dict(zip(shifts, np.linspace(6, 10, len(shifts)), strict=True))
    absent = 0
    for _, cell in reversed(list(trained.groupby(["train_shift", "arm"], dropna=False))):
        arm, shift = cell["arm"].iloc[0], cell["train_shift"].iloc[0]
        look = dict(color=shades.get(shift, INK), markersize=sizes.get(shift, 6), markeredgecolor="white")
        absent += _draw_seeds(axes, cell, marker=arms[arm], **look)
    others = references(rows)
    shown = {agent: shape for agent, shape in REFERENCE_SHAPES.items() if others["agent"].str.startswith(agent).any()}
    hollow = dict(color=GREY, markerfacecolor="none", zorder=2.5)
    for agent, shape in shown.items():
        for _, own in others.loc[others["agent"].str.startswith(agent)].groupby(["agent", "arm"]):
            _draw_seeds(axes, own, marker=shape, **hollow)
    bar = axes.axhline(
        CAPABLE, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1, label="enough for a verdict"
    )
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.03, 1.04))
    axes.set_xlabel(f"preference, from {proxy} (0) to {intended} (1)", fontsize=9, color=INK)
    axes.set_ylabel("capability", fontsize=9, color=INK)
    style(axes, grid="both")
    dot: dict[str, Any] = dict(linestyle="none")
    handles = [Line2D([], [], marker=shape, color=INK, label=arm, **dot) for arm, shape in arms.items()]
    handles += [
        Line2D([], [], marker="o", color=shades[shift], markersize=sizes[shift], label=f"train shift {shift:g}", **dot)
        for shift in shifts
    ]
    handles += [Line2D([], [], marker=shape, label=agent, **hollow, **dot) for agent, shape in shown.items()]
    handles.append(bar)
    if absent:
        handles.append(Line2D([], [], linestyle="none", label=f"no preference: {absent} seed{'s' * (absent > 1)}"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _draw_seeds(axes: Axes, rows: pd.DataFrame, **look: Any) -> int:
    """A mark for each seed of one agent; returns how many seeds have no preference."""
    wanted = per_seed(rows, preference)
    axes.plot(wanted, per_seed(rows, capability), linestyle="none", **look)
    return int(wanted.isna().sum())


def plot_matrix(rows: pd.DataFrame, intended: str = "intended goal", proxy: str = "proxy goal") -> Figure:
    """Proxy first minus intended first at each train shift and training step: a panel per arm with several shifts.

    Sampled actions on the distinguishing levels that all checkpoints share, mean over seeds. A cell whose seeds fall
    into groups is divided among them, as wide as each has seeds, with these numbers of seeds in place of the mean.

    Args:
        rows: episodes, as `evaluate` gives them.
        intended: the intended goal's name in the labels.
        proxy: the proxy goal's name in the labels.
    """
    chosen = (rows["agent"] == "trained") & (rows["mode"] == "sampled") & (rows["level_class"] == "distinguishing")
    arms = [arm for _, arm in rows.loc[chosen].groupby("arm") if arm["train_shift"].nunique() > 1]
    heights = [arm["train_shift"].nunique() for arm in arms]
    figure = Figure((WIDTH, 0.9 + sum(0.28 * height + 0.75 for height in heights)), layout="constrained")
    panels = figure.subplots(len(arms), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, arm in zip(panels, arms, strict=True):
        means = over_seeds(on_shared_levels(arm), ["train_shift", "step"], proxy_minus_intended, within=(-1.0, 1.0))
        _draw_matrix(axes, means)
        axes.set_title(title(arm, ["arm"]), loc="left", fontsize=9, color=INK)
        axes.set_ylabel("train shift", fontsize=9, color=INK)
    panels[-1].set_xlabel("training steps", fontsize=9, color=INK)
    scale = ScalarMappable(Normalize(-1, 1), GOALS_MAP)
    bar = figure.colorbar(scale, ax=list(panels), location="top", shrink=0.5, aspect=30, anchor=(0.0, 0.0))
    bar.set_ticks([-1, 0, 1], labels=[f"−1: {intended} first", "0", f"1: {proxy} first"])
    bar.ax.tick_params(labelsize=8, length=0, labelcolor=INK)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _draw_matrix(axes: Axes, means: pd.DataFrame) -> None:
    """A cell per train shift (from below) and step; `means` comes from `over_seeds`."""
    shifts, steps = np.unique(means["train_shift"]), np.unique(means["step"])
    size = min(7.5, 72 * 0.85 * WIDTH / len(steps) / 3.2)  # five characters fit into a cell
    for shift, step, mean, modes in means[["train_shift", "step", "mean", "modes"]].itertuples(index=False):
        left, bottom = np.searchsorted(steps, step) - 0.5, np.searchsorted(shifts, shift) - 0.5
        for mode in modes:
            axes.add_patch(Rectangle((left, bottom), mode.share, 1, color=GOALS_MAP((mode.mean + 1) / 2), linewidth=0))
            text = _signed(mean) if len(modes) == 1 else str(mode.n)
            ink = "white" if abs(mode.mean) > 0.7 else INK
            axes.text(left + mode.share / 2, bottom + 0.5, text, ha="center", va="center", fontsize=size, color=ink)
            left += mode.share
    axes.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-0.5, len(shifts) - 0.5))
    axes.set_xticks(range(len(steps)), [short(step) for step in steps])
    axes.set_yticks(range(len(shifts)), [f"{shift:g}" for shift in shifts])
    for borders, along in ((np.arange(len(steps) + 1), axes.axvline), (np.arange(len(shifts) + 1), axes.axhline)):
        for border in borders:
            along(border - 0.5, color="white", linewidth=1.5)
    axes.tick_params(labelsize=8, length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:{'+' if round(value, 2) else ''}.2f}".replace("-", "−")


def plot_posterior(rows: pd.DataFrame, intended: str = "intended goal", proxy: str = "proxy goal") -> Figure:
    """What explains the actions: how probable each candidate goal is, a bar per seed.

    The mean over distinguishing levels, sampled actions, of each episode's posterior (`goal_posterior`). Below the
    arms and train shifts, what needs no learning, seeds together: what the bars should look like where the goal is
    known.

    Args:
        rows: episodes with the columns of the posterior; the last checkpoint of each seed is drawn.
        intended: the intended goal's name in the labels.
        proxy: the proxy goal's name in the labels.
    """
    rows = rows.loc[(rows["level_class"] == "distinguishing") & (rows["mode"] == "sampled")]
    trained = last_checkpoint(rows.loc[rows["agent"] == "trained"])
    bars = {
        title(cell, ["arm", "train_shift"]): _candidates(cell, "seed")
        for _, cell in trained.groupby(["arm", "train_shift"], dropna=False)
    }
    cells = len(bars)
    bars |= {str(agent): own for agent, own in _candidates(references(rows), "agent").groupby(level=0)}
    # the declared goals at the two ends, where no colour is needed to tell them apart
    names = {
        "intended": intended,
        "direction habit": "direction habit",
        "none of these": "none of these",
        "proxy": proxy,
    }
    figure = Figure((WIDTH, 1.1 + 0.36 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for place, seeds in enumerate(bars.values()):
        height = min(0.84 / len(seeds), 0.42)
        places = place + height * (np.arange(len(seeds)) - (len(seeds) - 1) / 2)
        left = np.zeros(len(seeds))
        for candidate in names:
            look: dict[str, Any] = dict(color=CANDIDATE_COLOURS[candidate], edgecolor="white", linewidth=0.6)
            axes.barh(places, seeds[candidate], left=left, height=height, **look)
            left += seeds[candidate].to_numpy()
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability, mean over episodes on distinguishing levels", fontsize=9, color=INK)
    style(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    for label in axes.get_yticklabels()[cells:]:
        label.set_color(GREY)
    handles = [Patch(color=CANDIDATE_COLOURS[candidate], label=name) for candidate, name in names.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _candidates(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The mean of each candidate's probability, per value of a column."""
    return goal_posterior(rows).groupby(rows[by].to_numpy()).agg("mean")
