"""The numbers of the page: a line per arm and train shift and per reference, a column per metric."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import pandas as pd

from astray.experiments.metrics import (
    Metric,
    affinity,
    capability,
    conflict_mass,
    divergence,
    followed,
    gmg_index,
    intended_first,
    last_checkpoint,
    normalised,
    per_seed,
    proxy_first,
    references,
    regret,
    seed_interval,
    success,
)
from astray.experiments.posterior import CANDIDATES, COLUMNS, agent_score, goal_posterior
from astray.experiments.statistics import clopper_pearson, modes

NO_SEEDS = -1  # the seed of agents that are not trained
Pair = tuple[str, str]
"""A number, and what stands small below it."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        group: a heading that it shares with its neighbours.
        name: its own heading.
        metric: what it shows.
        within: the range of the metric's values.
        level_class: the levels that it is about.
        mode: "sampled" or "greedy" actions.
    """

    group: str
    name: str
    metric: Metric
    within: tuple[float, float] = (-math.inf, math.inf)
    level_class: str = "distinguishing"
    mode: str = "sampled"


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        name: arm, or agent that is not trained (and the arm that it belongs to, if any).
        train_shift: as text; empty for agents that are not trained.
        seeds: number of training seeds; 0 for agents that have none.
        reference: whether it is there for the others to be compared with.
        cells: for each column the pairs of each group of seeds; none where there is nothing to say.
    """

    name: str
    train_shift: str
    seeds: int
    reference: bool
    cells: list[list[Pair]]


@dataclass(frozen=True)
class Table:
    """Columns and lines, and how the intervals were made."""

    columns: list[Column]
    lines: list[Line]
    methods: list[str]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The shared headings, and over how many columns each stands."""
        return [(group, len(list(columns))) for group, columns in groupby(self.columns, lambda column: column.group)]


def outcome_columns(intended: str, proxy: str) -> list[Column]:
    """What is reached: outcomes and capability, sampled and greedy."""
    columns = [Column("ambiguous", "success", success, level_class="ambiguous")]
    for mode in ("sampled", "greedy"):
        group = f"distinguishing, {mode} actions"
        columns += [
            Column(group, "capability", capability, mode=mode),
            Column(group, f"{intended} first", intended_first, mode=mode),
            Column(group, f"{proxy} first", proxy_first, mode=mode),
        ]
    return columns


def value_columns(rows: pd.DataFrame, intended: str, proxy: str) -> list[Column]:
    """What is earned, from random (0) to expert (1): those columns for which the rows have what is needed."""
    compared = rows.loc[(rows["agent"] == "random") | rows["agent"].str.startswith("expert")]
    columns = []
    if compared["agent"].nunique() > 1 and {"value_intended", "value_proxy"} <= set(rows):
        columns += [
            Column("normalised value", intended, partial(normalised, goal="intended", references=compared)),
            Column("normalised value", proxy, partial(normalised, goal="proxy", references=compared)),
            Column("normalised value", "GMG index", partial(gmg_index, references=compared)),
        ]
    if compared["agent"].nunique() > 1:
        columns += [
            Column("affinity", intended, partial(affinity, goal="intended", references=compared)),
            Column("affinity", proxy, partial(affinity, goal="proxy", references=compared)),
        ]
    if {"best_intended", "value_intended"} <= set(rows):
        columns.append(Column("regret", intended, regret))
    return columns


def action_columns(rows: pd.DataFrame, intended: str, proxy: str) -> list[Column]:
    """What the actions say: those columns for which the rows have what is needed."""
    goals = dict(intended=intended, proxy=proxy)
    columns = []
    if {"mass_intended", "mass_proxy"} <= set(rows):
        columns += _for_each_goal("probability mass", conflict_mass, goals)
    if {"conflicts", "followed_intended", "followed_proxy"} <= set(rows):
        columns += _for_each_goal("actions taken", followed, goals)
    if {"divergence_intended", "divergence_proxy"} <= set(rows):
        columns += _for_each_goal("divergence, bits", divergence, goals)
    if set(COLUMNS) <= set(rows):
        named = {candidate: goals.get(candidate, candidate) for candidate in CANDIDATES}
        columns += [
            Column("goal posterior", name, partial(_candidate, candidate=candidate), (0.0, 1.0))
            for candidate, name in named.items()
        ]
        columns.append(Column("", "agent, not device", _agent, (0.0, 1.0)))
    return columns


def _for_each_goal(group: str, metric: Callable[..., pd.Series], goals: dict[str, str]) -> list[Column]:
    return [Column(group, name, partial(metric, goal=goal), (0.0, 1.0)) for goal, name in goals.items()]


def _candidate(rows: pd.DataFrame, candidate: str) -> pd.Series:
    return goal_posterior(rows).loc[:, candidate]


def _agent(rows: pd.DataFrame) -> pd.Series:
    return agent_score(rows).loc[:, "agent"]


def make_table(rows: pd.DataFrame, columns: Sequence[Column]) -> Table:
    """One line per arm and train shift, then one per reference (and arm, where it has seeds).

    Columns that have no number in any line are left out.
    """
    trained = last_checkpoint(rows.loc[rows["agent"] == "trained"])
    named = [(str(cell["arm"].iloc[0]), cell) for _, cell in trained.groupby(["arm", "train_shift"], dropna=False)]
    count = len(named)
    for agent, every in references(rows).groupby("agent"):
        if set(every["seed"]) == {NO_SEEDS}:
            named.append((str(agent), every))
        else:
            named += [(f"{arm}, {agent}", own) for arm, own in every.groupby("arm")]
    methods: set[str] = set()
    lines = []
    for number, (name, cell) in enumerate(named):
        cells = []
        for column in columns:
            pairs, method = _cell(cell, column)
            cells.append(pairs)
            methods |= method
        shift = cell["train_shift"].iloc[0]
        seeds = len(set(cell["seed"]) - {NO_SEEDS})
        lines.append(Line(name, "" if pd.isna(shift) else f"{shift:g}", seeds, number >= count, cells))
    kept = [i for i in range(len(columns)) if any(number != "–" for line in lines for number, _ in line.cells[i])]
    shown = [replace(line, cells=[line.cells[i] for i in kept]) for line in lines]
    return Table([columns[i] for i in kept], shown, sorted(methods))


def _cell(rows: pd.DataFrame, column: Column) -> tuple[list[Pair], set[str]]:
    """Mean and interval over seeds, or over episodes where there are no seeds; and the interval's method."""
    rows = rows.loc[(rows["level_class"] == column.level_class) & (rows["mode"] == column.mode)]
    if rows.empty:
        return [], set()
    if set(rows["seed"]) == {NO_SEEDS}:
        return _over_episodes(column.metric(rows)), set()
    interval = seed_interval(rows, column.metric, column.within)
    missing = f"{interval.missing} missing" if interval.missing else ""
    if not interval.n:
        return [("–", missing)], set()
    groups = modes(per_seed(rows, column.metric))
    if len(groups) > 1:
        pairs = [(_number(group.mean), f"{group.n} of {interval.n} seeds") for group in groups]
    elif interval.n > 1:
        pairs = [(_number(interval.mean), _range(interval.low, interval.high))]
    else:
        pairs = [(_number(interval.mean), "n = 1")]
    if missing:
        pairs.append(("", missing))
    return pairs, {interval.method} if len(groups) == 1 and interval.n > 1 else set()


def _over_episodes(values: pd.Series) -> list[Pair]:
    """The mean over episodes; marked *, its interval if they are true or false."""
    present = values.dropna()
    if present.empty:
        return []
    number = _number(float(present.astype(float).mean()))
    if not pd.api.types.is_bool_dtype(values):
        return [(number, "")]
    return [(number, f"{_range(*clopper_pearson(int(present.sum()), len(present)))}*")]


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _range(low: float, high: float) -> str:
    return f"{_number(low)}{' to ' if round(low, 2) < 0 else '–'}{_number(high)}"
