"""Curves of several runs over each other."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from astray.envs import InputError
from astray.experiments.curves import (
    AXIS_LABELS,
    FIRST,
    Axis,
    curve_points,
    draw_means,
    groups_handle,
    interval_handle,
    scale,
)
from astray.experiments.drawing import INK, SHAPES, WIDTH, style
from astray.experiments.metrics import outcome_rates, over_seeds

COLOURS = ("#333333", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of Okabe and Ito's, those that mean no goal here
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")


def plot_overlay(runs: Mapping[str, pd.DataFrame], x: Axis = "train_shift") -> Figure:
    """Intended first and proxy first on distinguishing levels, sampled actions: a line per run and arm.

    Against training steps and margin, train shifts are below each other.

    Args:
        runs: rows by the name that their lines get.
        x: the horizontal axis.

    Raises:
        InputError: `x` is none of the three axes, or no run has rows to draw.
    """
    parts = []
    for run, rows in runs.items():
        chosen = (rows["agent"] == "trained") & (rows["mode"] == "sampled") & (rows["level_class"] == "distinguishing")
        parts.append(curve_points(rows.loc[chosen], x).assign(line=lambda points, run=run: run + ": " + points["arm"]))
    points = pd.concat(parts, ignore_index=True)
    if points.empty:
        raise InputError(f"x={x!r}: none of these runs has rows to draw against it")
    facets = [(0.0, points)] if x == "train_shift" else list(points.groupby("train_shift"))
    looks = dict(zip(points["line"].unique(), zip(cycle(COLOURS), cycle(SHAPES), cycle(DASHES)), strict=False))
    deep = -(-(len(looks) + 2) // 2)  # lines of the legend
    figure = Figure((WIDTH, 0.7 + 0.2 * deep + (3.2 if len(facets) == 1 else 2.3 * len(facets))), layout="constrained")
    grid = figure.subplots(len(facets), 2, sharex=True, sharey=True, squeeze=False)
    split = False
    for panels, (shift, facet) in zip(grid, facets, strict=True):
        for axes, outcome in zip(panels, FIRST, strict=True):
            style(axes, grid="y")
            split |= _draw_lines(axes, facet, x, outcome, looks)
            of_shift = f", train shift {shift:g}" if len(facets) > 1 else ""
            axes.set_title(f"{outcome} goal first{of_shift}", loc="left", fontsize=9, color=INK)
            scale(axes, np.unique(points["x"]), x)
        panels[0].set_ylabel("share of episodes", fontsize=9, color=INK)
    grid[0, 0].set(ylim=(-0.03, 1.03), yticks=[0, 0.25, 0.5, 0.75, 1])
    for axes in grid[-1]:
        axes.set_xlabel(AXIS_LABELS[x], fontsize=9, color=INK)
    handles: list[Any] = [
        Line2D([], [], color=colour, marker=shape, linestyle=dashes, markersize=5.5, label=name)
        for name, (colour, shape, dashes) in looks.items()
    ]
    handles += [interval_handle(band=x != "train_shift"), *([groups_handle()] if split else [])]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=8, handlelength=3)
    return figure


def _draw_lines(
    axes: Axes, points: pd.DataFrame, x: Axis, outcome: str, looks: dict[str, tuple[str, str, str]]
) -> bool:
    """The lines of one panel, their seeds as small marks; returns whether some seeds fall into groups."""
    split = False
    for number, (name, (colour, shape, dashes)) in enumerate(looks.items()):
        line = points.loc[points["line"] == name]
        if line.empty:
            continue
        # side by side, as the lines share their places on the axis
        aside = 4 * (number - (len(looks) - 1) / 2) / 72 if x == "train_shift" else 0.0
        place = axes.transData + ScaledTranslation(aside, 0, axes.figure.dpi_scale_trans)
        look: dict[str, Any] = dict(color=colour, marker=shape, transform=place)
        seeds = outcome_rates(line, ["x", "seed"])[outcome].reset_index()
        small: dict[str, Any] = dict(markersize=3.5, alpha=0.45, markeredgewidth=0, linestyle="none")
        axes.plot(seeds["x"], seeds[outcome], **look, **small)
        means = over_seeds(line, ["x"], FIRST[outcome])
        split |= draw_means(axes, means, x, linestyle=dashes, markersize=5.5, **look)
    return split
