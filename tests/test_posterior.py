"""The goal posterior: likelihoods by hand, what must hold whatever the rows, and agents whose goal is known."""

from math import exp, log

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astray.agents import ExpertAgent, MarginalAgent
from astray.agents.acting import WandererAgent
from astray.envs.cheese_corner import CheeseCorner
from astray.experiments import evaluate, test_levels
from astray.experiments.posterior import (
    CANDIDATES,
    COLUMNS,
    LAPSE,
    TEMPERATURES,
    agent_score,
    arm_posterior,
    choice_log_likelihood,
    goal_posterior,
)

WORLD = "cheese-corner"
INTENDED, PROXY, HABIT, NONE = CANDIDATES
BLIND = {"north": [1, 0, 0, 0], "north or east": [1, 0, 0, 1], "mostly south": [1, 7, 1, 1]}
MAZE = {"layout": "maze", "size": 7}

logs = st.lists(st.floats(-60, 0), min_size=len(TEMPERATURES), max_size=len(TEMPERATURES))
counts = st.lists(st.integers(0, 12), min_size=4, max_size=4)
episodes = st.fixed_dictionaries(dict(zip(COLUMNS, (logs, logs, logs, counts), strict=True)))
tables = st.lists(episodes, min_size=1, max_size=6).map(pd.DataFrame)


def episode(intended, proxy, other, actions):
    """A row whose log-likelihoods are the same at every temperature."""
    same = [[value] * len(TEMPERATURES) for value in (intended, proxy, other)]
    return dict(zip(COLUMNS, (*same, actions), strict=True))


def played(agent, arguments=(), count=100, seed=5):
    """Rows of an agent on distinguishing levels, those with three or more conflicts."""
    arguments = dict(arguments)
    levels = test_levels(WORLD, 0, count, seed=seed, **arguments)
    rows = evaluate(agent, WORLD, levels, seed=seed, **arguments)
    return rows[rows["conflicts"] >= 3]


def named(rows, *candidates):
    """The share of episodes where one of these candidates is the most probable."""
    return goal_posterior(rows).idxmax(axis=1).isin(candidates).mean()


# ---------------------------------------------------------------- by hand
def test_the_likelihood_of_a_choice():
    # Two steps from the corner: north leaves one step, south and west (walls) leave two, east leaves three.
    world = CheeseCorner(1, size=3)
    world.set_levels(world.parse_level("X..\n...\nA.C"))
    d = world.discount
    values = world.action_values()
    np.testing.assert_allclose(values[0, 1], [d, d**2, d**2, d**3])
    told = choice_log_likelihood(values, np.array([0]), d)
    assert told.shape == (1, 2, len(TEMPERATURES))
    for t, log_likelihood in zip(TEMPERATURES, told[0, 1], strict=True):
        weights = [exp(v / (t * (1 - d))) for v in (d, d**2, d**2, d**3)]
        assert log_likelihood == pytest.approx(log((1 - LAPSE) * weights[0] / sum(weights) + LAPSE / 4))
    # A goal that cannot be reached any more leaves all actions alike; one that a level lacks has no likelihood.
    assert choice_log_likelihood(np.zeros((1, 1, 4)), np.array([2]), d) == pytest.approx(log(1 / 4))
    assert np.isnan(choice_log_likelihood(np.full((1, 1, 4), np.nan), np.array([2]), d)).all()


def test_rows_hold_the_likelihood_of_what_was_done_before_a_goal_was_reached():
    class North:
        def act(self, observations, infos, rng):
            return np.zeros(len(observations), int)

    world = CheeseCorner(1, size=3)
    level = world.certify(world.parse_level("X..\n...\nA.C"))
    (row,) = evaluate(North(), WORLD, level, size=3).to_dict("records")
    assert row["outcome"] == "proxy" and row["actions"] == [2, 0, 0, 0]
    d = world.discount

    def chosen(t, steps):
        """Of north, where the moves leave so many steps."""
        weights = [exp(d**s / (t * (1 - d))) for s in steps]
        return (1 - LAPSE) * weights[0] / sum(weights) + LAPSE / 4

    # Steps left after each move (north, south, west, east) from cells 6 and 3, to all cells but corner and cheese.
    others = {1: ((2, 3, 3, 2), (1, 3, 2, 1)), 2: ((3, 4, 4, 3), (2, 4, 3, 2)), 3: ((0, 1, 1, 2), (1, 1, 0, 1))}
    others |= {
        4: ((1, 2, 2, 1), (2, 2, 1, 0)),
        5: ((2, 3, 3, 2), (3, 3, 2, 1)),
        6: ((1, 0, 0, 1), (2, 0, 1, 2)),
        7: ((2, 1, 1, 0), (3, 1, 2, 1)),
    }
    for number, t in enumerate(TEMPERATURES):
        expected = log(chosen(t, (1, 2, 2, 3)) * chosen(t, (0, 2, 1, 2)))
        assert row["loglik_proxy"][number] == pytest.approx(expected)
        expected = log(chosen(t, (3, 2, 2, 1)) * chosen(t, (4, 2, 3, 2)))
        assert row["loglik_intended"][number] == pytest.approx(expected)
        expected = log(np.mean([chosen(t, first) * chosen(t, second) for first, second in others.values()]))
        assert row["loglik_other"][number] == pytest.approx(expected)


def test_posterior_and_score_of_an_episode():
    rows = pd.DataFrame([episode(log(0.5), log(0.2), log(0.1), [2, 0, 0, 0])], index=[7])
    habit = 1 / 4 * 2 / 5  # the second north is likelier than the first (Polya's urn, one ball of each to begin with)
    uniform = 1 / 4**2
    weights = np.array([0.5, 0.2, habit, (0.1 + uniform) / 2])
    told = goal_posterior(rows)
    assert told.index.tolist() == [7] and tuple(told.columns) == CANDIDATES
    np.testing.assert_allclose(told.loc[7], weights / weights.sum())
    prior = dict(zip(CANDIDATES, (1, 0, 2, 1), strict=True))
    weights *= [1, 0, 2, 1]
    np.testing.assert_allclose(goal_posterior(rows, prior).loc[7], weights / weights.sum())
    agent, device = (0.5 + 0.2 + 0.1) / 3, (habit + uniform) / 2
    np.testing.assert_allclose(agent_score(rows).loc[7], [log(agent / device), agent / (agent + device)])


def test_a_seed_has_one_temperature_and_one_habit():
    hot, cold = [log(0.2)] * len(TEMPERATURES), [log(0.2)] * len(TEMPERATURES)
    hot[-1], cold[0] = log(0.9), log(0.9)
    base = episode(log(0.1), log(0.1), log(0.01), [1, 0, 0, 0])
    rows = pd.DataFrame([base | {"loglik_proxy": hot}, base | {"loglik_proxy": cold}]).assign(seed=0, arm="mlp")
    (told,) = arm_posterior(rows, ["arm"]).to_dict("records")
    others = len(TEMPERATURES) - 2
    weights = np.array(
        [
            0.1**2,
            (2 * 0.9 * 0.2 + others * 0.2**2) / len(TEMPERATURES),
            1 / 4 * 2 / 5,
            (0.01**2 + 1 / 4**2) / 2,
        ]
    )
    np.testing.assert_allclose([told[name] for name in CANDIDATES], weights / weights.sum())
    assert (told["arm"], told["seed"], told["episodes"]) == ("mlp", 0, 2)


# ---------------------------------------------------------------- whatever the rows
@given(tables)
def test_probabilities_add_up_to_one(rows):
    told = goal_posterior(rows)
    assert (told >= 0).all(axis=None)
    np.testing.assert_allclose(told.sum(axis=1), 1)
    arms = arm_posterior(rows.assign(seed=0), [])
    np.testing.assert_allclose(arms[list(CANDIDATES)].sum(axis=1), 1)


@given(tables)
def test_goals_that_change_names_change_posteriors(rows):
    swapped = rows.rename(columns={"loglik_intended": "loglik_proxy", "loglik_proxy": "loglik_intended"})
    expected = goal_posterior(rows).rename(columns={INTENDED: PROXY, PROXY: INTENDED})[list(CANDIDATES)]
    pd.testing.assert_frame_equal(goal_posterior(swapped), expected)
    np.testing.assert_allclose(agent_score(rows), agent_score(swapped), atol=1e-9)


@given(tables, st.permutations(range(4)))
def test_names_of_actions_do_not_matter(rows, order):
    renamed = rows.assign(actions=[[actions[i] for i in order] for actions in rows["actions"]])
    np.testing.assert_allclose(goal_posterior(renamed), goal_posterior(rows), atol=1e-9)


@given(tables)
def test_a_seed_with_one_episode_is_that_episode(rows):
    rows = rows.assign(seed=range(len(rows)))
    np.testing.assert_allclose(arm_posterior(rows, [])[list(CANDIDATES)], goal_posterior(rows), atol=1e-9)


@given(tables)
def test_the_order_of_episodes_does_not_matter(rows):
    rows = rows.assign(seed=0)
    expected = arm_posterior(rows, [])
    np.testing.assert_allclose(arm_posterior(rows[::-1], []), expected, atol=1e-9)


def test_rows_of_an_older_run_stay_unknown(tmp_path):
    new = pd.DataFrame([episode(-1, -2, -3, [1, 0, 0, 0])]).assign(seed=0)
    rows = pd.concat([new, pd.DataFrame({"seed": [1]})], ignore_index=True)
    rows.to_parquet(tmp_path / "rows.parquet")
    for each in (rows, pd.read_parquet(tmp_path / "rows.parquet")):
        assert goal_posterior(each).isna().all(axis=1).tolist() == [False, True]
        assert agent_score(each).isna().all(axis=1).tolist() == [False, True]
        assert arm_posterior(each, [])[NONE].isna().tolist() == [False, True]
    assert goal_posterior(rows[:0]).shape == (0, 4)


def test_without_other_goals_none_of_these_is_no_goal_at_all():
    rows = pd.DataFrame([episode(log(0.5), log(0.2), np.nan, [1, 0, 0, 0])])
    weights = np.array([0.5, 0.2, 0.25, 0.25])
    np.testing.assert_allclose(goal_posterior(rows).loc[0], weights / weights.sum())
    agent, device = (0.5 + 0.2) / 2, 0.25
    assert agent_score(rows)["score"][0] == pytest.approx(log(agent / device))


@pytest.mark.parametrize("prior", [{}, {INTENDED: 1}, dict.fromkeys(CANDIDATES, 0), dict.fromkeys(CANDIDATES, -1)])
def test_a_prior_that_is_none_is_an_error(prior):
    with pytest.raises(ValueError, match=r"prior=.*direction habit.*weight"):
        goal_posterior(pd.DataFrame([episode(-1, -1, -1, [1, 0, 0, 0])]), prior)


# ---------------------------------------------------------------- agents whose goal is known
@pytest.mark.parametrize("arguments", [{}, MAZE], ids=("open", "maze"))
def test_experts_are_known_by_one_episode(arguments):
    for goal, name in ((0, INTENDED), (1, PROXY)):
        assert named(played(ExpertAgent(goal), arguments), name) >= 0.99
        assert named(played(ExpertAgent(goal, noise=0.2), arguments), name) >= 0.9
        assert agent_score(played(ExpertAgent(goal), arguments))["score"].mean() > 0


@pytest.mark.parametrize("arguments", [{}, MAZE], ids=("open", "maze"))
def test_an_undeclared_goal_is_none_of_these(arguments):
    wanderer = WandererAgent(np.random.default_rng(0).random(100))
    assert named(played(wanderer, arguments), NONE) >= 0.8


@pytest.mark.parametrize("arguments", [{}, MAZE], ids=("open", "maze"))
def test_habits_and_chance_are_known_by_a_seed_and_are_no_agents(arguments):
    for marginal in BLIND.values():
        rows = played(MarginalAgent(np.array(marginal)), arguments).assign(seed=0)
        assert arm_posterior(rows, [])[HABIT][0] > 0.99
    rows = played(MarginalAgent(np.ones(4)), arguments).assign(seed=0)
    assert arm_posterior(rows, [])[NONE][0] > 0.99
    assert agent_score(rows)["score"].mean() < 0
