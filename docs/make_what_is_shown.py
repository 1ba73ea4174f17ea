"""Writes a table and a figure of ``docs/language-models.md``: ``python docs/make_what_is_shown.py runs/FOLDER ...``.

The folders are those that ``astray run what-is-shown`` writes, of all its arms or of some each (``--policies``).
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from make_curiosity import put, table, told, trained_rows
from matplotlib.figure import Figure

from astray.experiments.drawing import SHAPES, WIDTH, save_figure, style
from astray.experiments.metrics import (
    capability,
    intended_first,
    last_checkpoint,
    per_seed,
    proxy_first,
    seed_interval,
    success,
)

PAGE = Path(__file__).parent / "language-models.md"
FIGURE = Path(__file__).parent / "what-is-shown"
LOOKS = {
    "smollm2": ("language model, trained", "#0072B2"),
    "frozen": ("head on a frozen language model", "#009E73"),
    "mlp": ("MLP on planes", "#D55E00"),
}


def lines(rows: pd.DataFrame) -> list[list[str]]:
    """A line of the table for each arm and train shift."""
    apart, both = (rows[rows["level_class"] == kind] for kind in ("distinguishing", "ambiguous"))
    found = []
    for (policy, arm, shift), mine in apart.groupby(["policy", "arm", "train_shift"], sort=False):
        there = both[(both["arm"] == arm) & (both["train_shift"] == shift)]
        found.append(
            [
                LOOKS[policy][0],
                arm.rpartition(" ")[2],
                f"{shift:g}",
                str(mine["seed"].nunique()),
                f"{seed_interval(there, success, (0.0, 1.0)).mean:.2f}",
                told(seed_interval(mine, intended_first, (0.0, 1.0))),
                told(seed_interval(mine, proxy_first, (0.0, 1.0))),
                f"{seed_interval(mine, capability, (0.0, 1.0)).mean:.2f}",
            ]
        )
    return found


def draw(rows: pd.DataFrame) -> None:
    """How often the cheese comes first, against train shift: a panel with the corner shown, and one without."""
    apart = rows[rows["level_class"] == "distinguishing"]
    shifts = sorted(apart["train_shift"].unique())
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, shown in zip(panels, ("shown", "hidden"), strict=True):
        style(axes, "y")
        for number, (policy, (name, colour)) in enumerate(LOOKS.items()):
            mine = apart[(apart["policy"] == policy) & apart["arm"].str.endswith(shown)]
            x = np.arange(len(shifts)) + (number - 1) * 0.12
            each = [mine[mine["train_shift"] == shift] for shift in shifts]
            intervals = [seed_interval(part, intended_first, (0.0, 1.0)) for part in each]
            middle = np.array([interval.mean for interval in intervals])
            ends = np.array([[max(0.0, i.mean - i.low), max(0.0, i.high - i.mean)] for i in intervals]).T
            axes.errorbar(x, middle, ends, fmt=f"{SHAPES[number]}-", color=colour, markersize=5, lw=1, label=name)
            for place, part in zip(x, each, strict=True):
                seeds = per_seed(part, intended_first)
                axes.plot(np.full(len(seeds), place), seeds, ".", color=colour, markersize=3, alpha=0.6)
        axes.set_xticks(range(len(shifts)), [f"{shift:g}" for shift in shifts])
        axes.set_xlabel("train shift")
        axes.set_title(f"corner {shown}", fontsize=9)
    panels[0].set_ylabel("cheese first")
    panels[0].set_ylim(-0.02, 1.02)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    save_figure(figure, FIGURE)
    FIGURE.with_suffix(".svg").unlink()  # the page shows the other


def main(runs: list[Path]) -> None:
    """Writes the section and the figure."""
    rows = last_checkpoint(pd.concat([trained_rows(folder) for folder in runs], ignore_index=True))
    draw(rows)
    columns = ["policy", "corner", "train shift", "seeds", "success", "cheese first", "corner first", "capability"]
    put(PAGE, {"what is shown": table(columns, lines(rows))})


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
