"""``astray compare``: what differs between two runs, on the levels that both were tested on."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from astray.envs import InputError
from astray.experiments.metrics import (
    Metric,
    capability,
    conflict_mass,
    intended_first,
    last_checkpoint,
    proxy_first,
    success,
)
from astray.experiments.run import open_run
from astray.experiments.statistics import paired_difference, probability_of_improvement, t_interval

MEASURES: tuple[tuple[str, str, Metric], ...] = (
    ("proxy first", "distinguishing", proxy_first),
    ("intended first", "distinguishing", intended_first),
    ("capability", "distinguishing", capability),
    ("success", "ambiguous", success),
    ("mass on proxy", "distinguishing", partial(conflict_mass, goal="proxy")),
    ("mass on intended", "distinguishing", partial(conflict_mass, goal="intended")),
)
"""What is compared: name, the class of levels it is measured on, metric."""
ONE_SEED = "Student's t over levels (one seed: over levels, says nothing about another seed)"

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def compare(first_rows: pd.DataFrame, second_rows: pd.DataFrame) -> pd.DataFrame:
    """Second minus first, for each arm and train shift that both have: their last checkpoints, sampled actions.

    The training seed is the unit: `paired_difference` over the seeds that both have, on the levels that both were
    tested on. Where one of the two has a single seed, that seed's levels are the unit, which `method` says.

    Args:
        first_rows: rows of a run.
        second_rows: rows of another. Its arms are those of the same name; if there is none, and each run has one arm,
            these two are compared.

    Returns:
        One row per arm, train shift and measure, with the columns

        - ``arm`` ("A → B" where the names differ), ``train_shift``, ``metric``, ``level_class``;
        - ``first_step``, ``second_step``: training steps of the last checkpoint;
        - ``common``, ``levels``: levels of the class that both were tested on; of these, those with a value in both;
        - ``first``, ``second``: means over the seeds that are compared, on `levels`;
        - ``difference``, ``low``, ``high``, ``n``, ``missing``, ``method``: the interval; ``n`` and ``missing`` count
          ``unit``, "seed" or "level";
        - ``probability``, ``probability_low``, ``probability_high``: that a seed of the second run has more of it than
          one of the first; NaN where levels are the unit.

    Raises:
        InputError: nothing was trained, no arm and train shift is in both, or they were tested on other levels.
    """
    first, second = _trained("first", first_rows), _trained("second", second_rows)
    told = []
    for arms, shift in _pairs(first, second):
        pair = [
            rows.loc[(rows["arm"] == arm) & (rows["train_shift"] == shift)]
            for rows, arm in zip((first, second), arms, strict=True)
        ]
        label = {"arm": " → ".join(dict.fromkeys(arms)), "train_shift": shift}
        steps = {"first_step": pair[0]["step"].max(), "second_step": pair[1]["step"].max()}
        if not set(pair[0]["level"]) & set(pair[1]["level"]):
            raise InputError(f"second was tested on other levels than first: arm {label['arm']!r} has none in common")
        for name, level_class, metric in MEASURES:
            values = [_values(rows.loc[rows["level_class"] == level_class], metric) for rows in pair]
            told.append(label | {"metric": name, "level_class": level_class} | steps | _difference(*values))
    return pd.DataFrame(told)


def _trained(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    trained = rows.loc[(rows["agent"] == "trained") & (rows["mode"] == "sampled")]
    if trained.empty:
        raise InputError(f"{name} has no rows of a trained agent: no cell of it is finished")
    return last_checkpoint(trained)


def _pairs(first: pd.DataFrame, second: pd.DataFrame) -> list[tuple[tuple[str, str], float]]:
    """The arms and train shifts that both have, in the order of the first run."""
    names, others = first["arm"].unique(), second["arm"].unique()
    arms = [(name, name) for name in names if name in others]
    if not arms and len(names) == len(others) == 1:
        arms = [(names[0], others[0])]
    shifts = [
        ((one, other), shift)
        for one, other in arms
        for shift in first.loc[first["arm"] == one, "train_shift"].unique()
        if shift in second.loc[second["arm"] == other, "train_shift"].unique()
    ]
    if not shifts:
        has = [
            ", ".join(f"{arm!r} at {shift:g}" for arm, shift in rows[["arm", "train_shift"]].drop_duplicates().values)
            for rows in (first, second)
        ]
        raise InputError(f"second has no arm and train shift in common with first: it has {has[1]}; first has {has[0]}")
    return shifts


def _values(rows: pd.DataFrame, metric: Metric) -> pd.Series:
    """A metric by (seed, level)."""
    return pd.Series(metric(rows).astype(float).groupby([rows["seed"], rows["level"]]).mean())


def _difference(first: pd.Series, second: pd.Series) -> dict[str, Any]:
    """What the values of one measure, by (seed, level), say about second minus first."""
    pair = [first, second]
    levels = [values.index.unique("level") for values in pair]
    common = levels[0].intersection(levels[1])
    first, second = pair = [_only(values, "level", common) for values in pair]
    levels, seeds = ([values.dropna().index.unique(name) for values in pair] for name in ("level", "seed"))
    both, partners = (indexes[0].intersection(indexes[1]) for indexes in (levels, seeds))
    fewest = min(map(len, seeds))
    over_seeds = paired_difference(second, first)
    if len(partners) >= (2 if fewest > 1 else 1):  # else there are no pairs, and all seeds count
        first, second = pair = [_only(values, "seed", partners) for values in pair]
    if fewest > 1:
        unit, interval = "seed", over_seeds
        more = probability_of_improvement(_mean(second, "seed"), _mean(first, "seed"))
    else:
        differences = _mean(second, "level") - _mean(first, "level")
        unit, interval = "level", replace(t_interval(differences, within=(-1, 1)), method=ONE_SEED)
        more = probability_of_improvement([], [])
    means = [_mean(_only(values, "level", both), "seed").mean() for values in pair]
    return {
        "common": len(common),
        "levels": len(both),
        "first": means[0],
        "second": means[1],
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "missing": interval.missing,
        "unit": unit,
        "method": interval.method,
        "probability": more.mean,
        "probability_low": more.low,
        "probability_high": more.high,
    }


def _only(values: pd.Series, name: str, index: pd.Index) -> pd.Series:
    """The values of these seeds, or of these levels."""
    return values.loc[values.index.isin(index, level=name)]


def _mean(values: pd.Series, of: str) -> pd.Series:
    """The mean of each seed, or of each level."""
    return pd.Series(values.groupby(level=of).mean())


def show(first: Path, second: Path) -> None:
    """Prints a table for each arm and train shift that two run folders have in common.

    Raises:
        InputError: a folder is no run folder, their goals differ, or as in `compare`.
        OSError: a file is damaged; the sentence names it.
    """
    (config, rows), (other, other_rows) = open_run(first), open_run(second)
    goals, others = (", ".join(each["goals"]) for each in (config, other))
    if goals != others:
        raise InputError(f"second={str(second)!r} has other goals than first: {others}, not {goals}")
    told = compare(rows, other_rows)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe has no edge to break lines at
    console.print(f"first: {first}, second: {second}", **PLAIN)
    console.print(f"goals, the intended one first: {goals}; last checkpoints, sampled actions", **PLAIN)
    if told["arm"].str.contains(" → ").any():
        console.print("No arm's name is in both runs: the only arm of each is compared.", **PLAIN)
    console.print("Differences are second minus first: above 0, the second run has more of it.", **PLAIN)
    for _, group in told.groupby(["arm", "train_shift"], sort=False):
        console.print(f"\n{_title(group)}", style="bold", **PLAIN)
        console.print(_table(group))
    intervals = told.dropna(subset="low")
    console.print(
        f"\nIntervals: {'; '.join(intervals['method'].unique())}. P: Newcombe's method 5 over seeds.", **PLAIN
    )
    if intervals["low"].eq(intervals["high"]).to_numpy().any():
        console.print("An interval without width says that all of them agree, and not that they must.", **PLAIN)
    console.print(
        f"Each is a 95% interval: of {len(intervals)}, about {0.05 * len(intervals):.0f} miss by chance.", **PLAIN
    )


def _title(group: pd.DataFrame) -> str:
    first = group.iloc[0]
    steps = " and ".join(f"{step:,}" for step in dict.fromkeys(first[["first_step", "second_step"]]))
    common = group.drop_duplicates("level_class").set_index("level_class")["common"]
    levels = " and ".join(f"{count} {level_class}" for level_class, count in common.items())
    return f"{first['arm']}, train shift {first['train_shift']:g}, {steps} steps: {levels} levels in common"


def _table(group: pd.DataFrame) -> Table:
    table = Table("", box=None, pad_edge=False)
    for column in ("first", "second", "second − first", "P(second > first)"):
        table.add_column(column, justify="right")
    table.add_column("over")
    row: Any
    for row in group.itertuples():
        table.add_row(
            f"{row.metric}, {row.level_class}",
            _number(row.first),
            _number(row.second),
            _number(row.difference, row.low, row.high),
            _number(row.probability, row.probability_low, row.probability_high),
            _over(row),
        )
    return table


def _over(row: Any) -> str:
    """What an interval is over, and what it lacks."""
    if not row.n:
        return f"no value on {row.common} levels"
    words = [f"{row.n} {row.unit}s"]
    if row.unit == "level":
        words.append("one seed")
    elif row.levels < row.common:
        words.append(f"{row.levels} of {row.common} levels")
    if row.missing:
        words.append(f"{row.missing} missing")
    return ", ".join(words)


def _number(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A number with its interval, if there is one; a dash for NaN."""
    if math.isnan(value):
        return "–"
    ends = "" if math.isnan(low) else f" ({low:z.2f} to {high:z.2f})"
    return f"{value:z.2f}{ends}".replace("-", "−")
