"""Tables of the page: what stands in a cell, from rows small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

from astray.experiments.posterior import TEMPERATURES
from astray.experiments.tables import action_columns, make_table, outcome_columns, value_columns

GOALS = ("cheese", "corner")


def episodes(intended, proxy, levels=10, **cell):
    """So many distinguishing levels, of which some end at each goal after one step, and the others at neither."""
    outcome = ["intended"] * intended + ["proxy"] * proxy + ["neither"] * (levels - intended - proxy)
    told = dict(arm="mlp", agent="trained", train_shift=0.0, seed=0, step=100, mode="sampled") | cell
    level = dict(level=[f"level-{i}" for i in range(levels)], level_class="distinguishing", outcome=outcome, length=5)
    rows = pd.DataFrame(told | level)
    rows["intended_step"] = np.where(rows["outcome"] == "intended", 1, -1)
    rows["proxy_step"] = np.where(rows["outcome"] == "proxy", 1, -1)
    return rows


def reference(agent, intended, proxy):
    return episodes(intended, proxy, arm="references", agent=agent, train_shift=np.nan, seed=-1, step=0)


REFERENCES = [reference("random", 2, 2), reference("expert: cheese", 10, 0), reference("expert: corner", 0, 10)]


def cells(rows, columns, name="mlp"):
    """The cells of one line, by group and name of their columns."""
    table = make_table(rows, columns)
    line = next(line for line in table.lines if line.name == name)
    return dict(zip([(column.group, column.name) for column in table.columns], line.cells, strict=True))


def with_values(rows):
    """Each goal is worth 1 from the start, and is earned if it is reached."""
    reached = {f"value_{goal}": (rows["outcome"] == goal).astype(float) for goal in ("intended", "proxy")}
    return rows.assign(**reached, best_intended=1.0, best_proxy=1.0)


def test_mean_and_interval_over_seeds_and_over_episodes_for_what_has_none():
    rows = pd.concat([episodes(2, 8, seed=seed) for seed in range(3)] + REFERENCES, ignore_index=True)
    table = make_table(rows, outcome_columns(*GOALS))
    assert [column.name for column in table.columns] == ["capability", "cheese first", "corner first"]
    assert table.groups == [("distinguishing, sampled actions", 3)], "columns without any number are left out"
    assert [line.name for line in table.lines] == ["mlp", "expert: cheese", "expert: corner", "random"]
    assert [line.reference for line in table.lines] == [False, True, True, True]
    mlp, *_, random = table.lines
    assert (mlp.train_shift, mlp.seeds, random.train_shift, random.seeds) == ("0", 3, "", 0)
    # three equal seeds are pooled: 6 of 30, 2 of 10 (Clopper and Pearson)
    assert mlp.cells[1] == [("0.20", "0.08–0.39")]
    assert random.cells[1] == [("0.20", "0.03–0.56*")]
    assert table.methods == ["Korn-Graubard over seeds"]


def test_one_seed_has_no_interval():
    assert cells(episodes(2, 8), outcome_columns(*GOALS))["distinguishing, sampled actions", "cheese first"] == [
        ("0.20", "n = 1")
    ]


def test_groups_of_seeds_have_their_shares_in_place_of_a_mean():
    rows = pd.concat([episodes(*((9, 1) if seed < 3 else (0, 10)), seed=seed) for seed in range(5)], ignore_index=True)
    found = cells(rows, outcome_columns(*GOALS))
    assert found["distinguishing, sampled actions", "cheese first"] == [
        ("0.00", "2 of 5 seeds"),
        ("0.90", "3 of 5 seeds"),
    ]
    assert found["distinguishing, sampled actions", "capability"] == [("1.00", "0.93–1.00")]


def test_values_lie_between_random_and_expert_and_missing_seeds_are_counted():
    seeds = [episodes(0, 10, seed=0), episodes(1, 8, seed=1), episodes(2, 5, seed=2)]
    rows = with_values(pd.concat(seeds + REFERENCES, ignore_index=True))
    found = cells(rows, value_columns(rows, *GOALS))
    # cheese: (0 + .1 + .2) / 3 earned, random .2, expert 1; corner: (1 + .8 + .5) / 3
    assert found["normalised value", "cheese"][0][0] == "−0.12"
    assert found["normalised value", "corner"][0][0] == "0.71"
    # seed 2 reaches a goal in 7 of 10 episodes, which is too seldom for an index
    number, missing = found["normalised value", "GMG index"]
    assert number[0] == "1.06" and missing == ("", "1 missing")
    assert found["regret", "cheese"][0][0] == "0.90"
    random = cells(rows, value_columns(rows, *GOALS), "random")
    assert random["normalised value", "cheese"] == [("0.00", "")]
    assert random["normalised value", "GMG index"] == []


def test_a_negative_end_is_told_from_the_dash_between_the_ends():
    rows = pd.concat([episodes(seed, 0, seed=seed) for seed in range(3)] + REFERENCES, ignore_index=True)
    [(number, ends)] = cells(with_values(rows), value_columns(with_values(rows), *GOALS))["normalised value", "cheese"]
    assert number == "−0.12" and " to " in ends and "−" in ends


def test_columns_need_what_they_are_made_from():
    rows = episodes(2, 8)
    assert value_columns(rows, *GOALS) == [] and action_columns(rows, *GOALS) == []
    old = pd.concat([rows, *REFERENCES], ignore_index=True).assign(mass_intended=0.2, mass_proxy=0.8)
    assert {column.group for column in value_columns(old, *GOALS)} == {"affinity"}
    assert {column.group for column in action_columns(old, *GOALS)} == {"probability mass"}


def test_what_the_actions_say():
    many = len(TEMPERATURES)
    rows = pd.concat([episodes(0, 10, seed=seed) for seed in range(2)], ignore_index=True)
    rows = rows.assign(
        mass_intended=0.1, mass_proxy=0.9, conflicts=4, followed_intended=1, followed_proxy=3,
        divergence_intended=0.7, divergence_proxy=0.0,
        loglik_intended=[[-200.0] * many] * 20, loglik_proxy=[[0.0] * many] * 20, loglik_other=[[-200.0] * many] * 20,
        actions=[[15, 15, 15, 15]] * 20,
    )  # fmt: skip
    found = {column: pairs[0][0] for column, pairs in cells(rows, action_columns(rows, *GOALS)).items()}
    assert found == {
        ("probability mass", "cheese"): "0.10",
        ("probability mass", "corner"): "0.90",
        ("actions taken", "cheese"): "0.25",
        ("actions taken", "corner"): "0.75",
        ("divergence, bits", "cheese"): "0.70",
        ("divergence, bits", "corner"): "0.00",
        ("goal posterior", "cheese"): "0.00",
        ("goal posterior", "corner"): "1.00",
        ("goal posterior", "direction habit"): "0.00",
        ("goal posterior", "none of these"): "0.00",
        ("", "agent, not device"): "1.00",
    }


@pytest.mark.parametrize("agent", ["untrained", "state-blind"])
def test_references_with_seeds_have_a_line_per_arm(agent):
    own = dict(step=0) if agent == "untrained" else dict(agent=agent)
    parts = [episodes(2, 8, arm=arm) for arm in ("a", "b")] + [episodes(1, 1, arm=arm, **own) for arm in ("a", "b")]
    table = make_table(pd.concat(parts, ignore_index=True), outcome_columns(*GOALS))
    assert [line.name for line in table.lines] == ["a", "b", f"a, {agent}", f"b, {agent}"]
