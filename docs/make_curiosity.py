"""Writes ``docs/curiosity.md`` and its figure from run folders: ``python docs/make_curiosity.py runs``.

The folders are those that ``astray run`` writes for curiosity-rooms, curiosity-transfer, curiosity-goals,
curiosity-goals-keys and curiosity-goals-language.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from astray.experiments.drawing import GREY, SHAPES, WIDTH, save_figure, style
from astray.experiments.files import read_json, read_rows
from astray.experiments.metrics import (
    Metric,
    capability,
    intended_first,
    last_checkpoint,
    per_seed,
    proxy_first,
    seed_interval,
    success,
)
from astray.experiments.statistics import Interval, paired_difference, rate_interval, t_interval

PAGE = Path(__file__).parent / "curiosity.md"
FIGURE = Path(__file__).parent / "curiosity-goals"
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#66C2A5", "#767676", "#B0B0B0", "#CC79A7", "#E3B9D1")


def trained_rows(folder: Path) -> pd.DataFrame:
    """Sampled rows of trained policies."""
    rows = read_rows(folder / "rows.parquet")
    return rows[(rows["agent"] == "trained") & (rows["mode"] == "sampled")]


def told(interval: Interval) -> str:
    """A mean over seeds with its 95% interval."""
    return f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def table(columns: list[str], lines: list[list[str]]) -> str:
    """A Markdown table whose first column is left-aligned."""
    head = [f"| {' | '.join(columns)} |", "|---|" + "--:|" * (len(columns) - 1)]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])


def put(page: Path, parts: dict[str, str]) -> None:
    """Puts tables between the marks of their names in a page; what has none yet comes last."""
    text = page.read_text(encoding="utf-8")
    for name, lines in parts.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        if begin not in text:
            text += f"\n{begin}{end}\n"
        before, _, rest = text.partition(begin)
        text = before + begin + lines + end + rest.partition(end)[2]
    page.write_text(text, encoding="utf-8")


def minutes(folder: Path) -> float:
    """What all cells took together."""
    return sum(sum(read_json(path).values()) for path in (folder / "timings").glob("*.json")) / 60


def met_between_tests(rows: pd.DataFrame) -> pd.DataFrame:
    """What each seed met in training between its last two tests: differences of the counts."""
    counts = [name for name in rows if name.startswith("met_")] + ["steps_so_far"]
    rows = rows.assign(steps_so_far=rows["step"])
    by_step = rows.groupby(["arm", "seed", "step"])[counts].first().sort_index()
    return by_step.groupby(["arm", "seed"]).apply(lambda each: each.iloc[-1] - each.iloc[-2])


def rooms(folder: Path) -> str:
    """Exit rates with and without curiosity after the last test in training, and the share of steps at the radio."""
    rows = trained_rows(folder)
    late = met_between_tests(rows)
    whole = rows.groupby(["arm", "seed", "step"]).first().groupby(["arm", "seed"]).last()
    lines = []
    for arm in (each["name"] for each in read_json(folder / "config.json")["arms"]):
        last = late.loc[arm]
        rates = last["met_exit"] / last["met_episodes"]
        exits = told(rate_interval(rates, last["met_episodes"].to_numpy()))
        at_radio = told(t_interval(whole.loc[arm]["met_turned_on_radio"] / _steps(rows, arm), (0.0, 1.0)))
        lines.append([arm, exits, " ".join(f"{rate:.2f}" for rate in rates), at_radio if "radio" in arm else ""])
    return table(
        ["arm", "episodes with exit at the end of training", "each seed", "share of steps at the radio"], lines
    )


def _steps(rows: pd.DataFrame, arm: str) -> int:
    return int(rows.loc[rows["arm"] == arm, "step"].max())


def transfer(folder: Path) -> str:
    """Exit rates on new layouts against steps."""
    rows = trained_rows(folder)
    steps = sorted(rows["step"].unique())
    lines = []
    for arm, of_arm in rows.groupby("arm", sort=False):
        kind = of_arm[of_arm["level_class"] == "distinguishing"]
        cells = []
        for step in steps:
            here = kind[kind["step"] == step]
            cells.append(told(seed_interval(here, success, (0.0, 1.0))) if len(here) else "")
        lines.append([str(arm), *cells])
    return table(["exit on levels of the second kind, after steps", *(f"{step:,}" for step in steps)], lines)


def goals(folder: Path) -> tuple[str, pd.DataFrame]:
    """Differences to the arm without bonus, seed by seed on the same levels; and the same for a figure."""
    rows = last_checkpoint(trained_rows(folder))
    apart, both = (rows[rows["level_class"] == kind] for kind in ("distinguishing", "ambiguous"))
    names = list(dict.fromkeys(rows["arm"]))
    lines, points = [], []
    for shift in sorted(rows["train_shift"].unique()):
        here, there = apart[apart["train_shift"] == shift], both[both["train_shift"] == shift]
        plain = _per_level(here[here["arm"] == names[0]], intended_first)
        for name in names:
            mine = here[here["arm"] == name]
            difference = paired_difference(_per_level(mine, intended_first), plain) if name != names[0] else None
            met = mine.groupby("seed")[["met_contradictions", "met_observations"]].first()
            lines.append(
                [
                    name,
                    f"{shift:g}",
                    told(seed_interval(mine, intended_first, (0.0, 1.0))),
                    told(seed_interval(mine, proxy_first, (0.0, 1.0))),
                    f"{difference.mean:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})" if difference else "",
                    f"{seed_interval(there[there['arm'] == name], success, (0.0, 1.0)).mean:.2f}",
                    f"{seed_interval(mine, capability, (0.0, 1.0)).mean:.2f}",
                    f"{met['met_contradictions'].mean():,.0f}",
                    f"{met['met_observations'].mean():,.0f}",
                ]
            )
            if difference:
                seeds = per_seed(mine, intended_first) - per_seed(here[here["arm"] == names[0]], intended_first)
                points.append({"arm": name, "shift": shift, "difference": difference, "seeds": seeds.to_numpy()})
    columns = ["arm", "train shift", "intended first", "proxy first", "difference", "success", "capability"]
    return table([*columns, "contradictions met", "observations met"], lines), pd.DataFrame(points)


def _per_level(rows: pd.DataFrame, metric: Metric) -> pd.Series:
    return pd.Series(metric(rows).to_numpy(), pd.MultiIndex.from_frame(rows[["seed", "level"]]))


def draw(panels: dict[str, pd.DataFrame]) -> None:
    """Differences to no bonus, one panel for each world, a group of marks for each train shift."""
    figure = Figure(figsize=(WIDTH, 3.2 * len(panels)), layout="constrained")
    for axes, (world, points) in zip(np.atleast_1d(figure.subplots(len(panels))), panels.items(), strict=True):
        style(axes, "y")
        shifts, names = sorted(points["shift"].unique()), list(dict.fromkeys(points["arm"]))
        for number, name in enumerate(names):
            mine = points[points["arm"] == name]
            x = np.array([shifts.index(shift) for shift in mine["shift"]]) + (number - (len(names) - 1) / 2) * 0.08
            middle = np.array([each.mean for each in mine["difference"]])
            ends = np.array([[each.mean - each.low, each.high - each.mean] for each in mine["difference"]]).T
            look = dict(color=COLOURS[number], markerfacecolor="white" if "annealed" in name else COLOURS[number])
            axes.errorbar(x, middle, ends, fmt=SHAPES[number // 2], markersize=5, lw=1, label=name, **look)
            for place, seeds in zip(x, mine["seeds"], strict=True):
                axes.plot(np.full(len(seeds), place), seeds, ".", color=COLOURS[number], markersize=2, alpha=0.7)
        axes.axhline(0, color=GREY, lw=0.8)
        axes.set_xticks(range(len(shifts)), [f"{shift:g}" for shift in shifts])
        axes.set_xlabel("train shift")
        axes.set_ylabel("intended first, minus without bonus")
        axes.set_title(
            f"{world}: {len(points['seeds'].iloc[0])} seeds, 95% intervals of paired differences", fontsize=9
        )
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7, frameon=False)
    save_figure(figure, FIGURE)
    FIGURE.with_suffix(".svg").unlink()  # the page shows the other


def main(runs: Path) -> None:
    """Writes the page and the figure."""
    drawn = ("curiosity-goals", "curiosity-goals-keys")
    told_of_goals = {name: goals(runs / name) for name in (*drawn, "curiosity-goals-language")}
    draw({name: told_of_goals[name][1] for name in drawn})
    parts = {"rooms": rooms(runs / "curiosity-rooms"), "transfer": transfer(runs / "curiosity-transfer")}
    put(PAGE, parts | {name: lines for name, (lines, _) in told_of_goals.items()})
    for name in ("curiosity-rooms", "curiosity-transfer", *told_of_goals):
        print(f"{name}: {minutes(runs / name):.1f} minutes of one core")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
