"""Evaluation: what rows say, by hand; and that looking changes nothing."""

import json
import random

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.torch_layers import FlattenExtractor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from astray.agents import MLP_PPO, ExpertAgent, MarginalAgent, PolicyAgent, vec_env
from astray.agents.acting import WandererAgent, choose_actions
from astray.envs import World
from astray.envs.cheese_corner import CheeseCorner
from astray.experiments import MisgeneralizationCallback, evaluate, plot_curve, test_levels
from astray.experiments.evaluation import atlas, divergence, outcomes, play
from astray.experiments.metrics import sought

WORLD = "astray/CheeseCorner-v0"
SETTINGS = MLP_PPO | {"n_steps": 16, "batch_size": 128}


class Scripted:
    """Plays a list of actions, whatever it sees."""

    def __init__(self, actions):
        self.actions = list(actions)

    def act(self, observations, infos, rng):
        return np.full(len(observations), self.actions.pop(0))


class StandStill(MarginalAgent):
    """Walks into the west wall, and says that its probabilities are others."""

    def __init__(self):
        super().__init__(np.array([0.25, 0.3, 0.4, 0.05]))
        self.greedy = True  # west is the most probable


def level(text, **arguments):
    """One certified level."""
    world = CheeseCorner(**arguments)
    return world.certify(world.parse_level(text))


def on(levels, **arguments):
    """A world that stands on levels."""
    world = CheeseCorner(len(levels), **arguments)
    world.set_levels(levels.levels)
    return world


def test_rows_by_hand():
    # corner 2 north, cheese 2 south and 2 east: north, north, then the long way back to the cheese
    one = level("X....\n.....\nA....\n.....\n..C..")
    rows = evaluate(Scripted([0, 0, 1, 1, 1, 1, 3, 3]), WORLD, one)
    (row,) = rows.to_dict("records")
    assert row["level_class"] == "distinguishing" and row["outcome"] == "proxy"
    assert (row["proxy_step"], row["intended_step"], row["length"], row["return"]) == (2, 8, 8, 1.0)
    # best: 4 steps; the corner first: 2 + 6 steps
    assert row["margin"] == pytest.approx(0.97**3 - 0.97**7)
    assert np.isnan(row["mass_intended"])  # a scripted agent has no probabilities
    rows = evaluate(Scripted([2] * 15), WORLD, one)
    assert rows["outcome"][0] == "neither" and rows["length"][0] == 15 and rows["return"][0] == 0


def test_conflict_mass_by_hand():
    # Optimal for the corner: north. For the cheese: south or east. They conflict in the first state.
    one = level("X....\n.....\nA....\n.....\n..C..", max_steps=8)
    marginal = MarginalAgent(np.array([0.25, 0.3, 0.4, 0.05]))
    first = next(play(marginal, on(one, max_steps=8), np.random.default_rng(0)))
    assert first.optimal[0].tolist() == [[False, True, False, True], [True, False, False, False]]
    rows = evaluate(StandStill(), WORLD, one, max_steps=8)
    assert (rows["mass_intended"][0], rows["mass_proxy"][0]) == pytest.approx((0.3 + 0.05, 0.25))
    one = level("X....\n.....\nA....\n.....\n..C..")
    for goal, masses in ((0, (1.0, 0.0)), (1, (0.0, 1.0))):
        rows = evaluate(ExpertAgent(goal), WORLD, one)
        assert (rows["mass_intended"][0], rows["mass_proxy"][0]) == masses
    ambiguous = level("B....\n.....\nA....\n.....\n.....")
    assert np.isnan(evaluate(ExpertAgent(0), WORLD, ambiguous)["mass_proxy"][0])


def test_values_and_conflicts_by_hand():
    # corner 2 north, cheese 2 south and 2 east: one step north, one back south, then to the cheese
    one = level("X....\n.....\nA....\n.....\n..C..")
    (row,) = evaluate(Scripted([0, 1, 1, 1, 3, 3]), WORLD, one).to_dict("records")
    assert (row["intended_step"], row["proxy_step"], row["value_proxy"]) == (6, -1, 0.0)
    assert (row["value_intended"], row["best_intended"], row["best_proxy"]) == pytest.approx((0.97**5, 0.97**3, 0.97))
    # The goals disagree until the west wall is left: on the way east, west is still good for the corner.
    assert (row["conflicts"], row["followed_intended"], row["followed_proxy"]) == (6, 5, 1)
    assert row["actions"] == [1, 3, 0, 2]
    # What happens after a goal was reached does not count.
    (row,) = evaluate(Scripted([0, 0, 1, 1, 1, 1, 3, 3]), WORLD, one).to_dict("records")
    assert (row["value_intended"], row["value_proxy"]) == pytest.approx((0.97**7, 0.97))
    assert (row["conflicts"], row["followed_intended"], row["followed_proxy"]) == (2, 0, 2)
    assert row["actions"] == [2, 0, 0, 0]


def test_divergence_by_hand():
    both, one, none = np.array([[True, True, False, False], [True, False, False, False], [False] * 4])[:, None]
    assert divergence(np.array([[0.5, 0.5, 0, 0]]), both) == 0
    assert divergence(np.array([[0, 0, 0.5, 0.5]]), both) == 1
    # the mean is (3/4, 1/4): its entropy of .8113 bits, less half of the one bit of (1/2, 1/2)
    assert divergence(np.array([[0.5, 0.5, 0, 0]]), one) == pytest.approx(0.3112781, abs=1e-7)
    assert np.isnan(divergence(np.array([[0.5, 0.5, 0, 0]]), none))
    levels = level("X....\n.....\nA....\n.....\n..C..")
    rows = evaluate(ExpertAgent(1), WORLD, levels)
    assert rows["divergence_proxy"][0] == 0 and rows["divergence_intended"][0] == 1
    rows = evaluate(Scripted([0, 0, 1, 1, 1, 1, 3, 3]), WORLD, levels)
    assert np.isnan(rows["divergence_proxy"][0])  # a scripted agent has no probabilities


def test_worlds_without_exact_experts_or_other_goals_have_no_such_numbers():
    class Plain(CheeseCorner):
        """A world that says less."""

        expert_exact = False
        other_values = World.other_values

    levels = test_levels(Plain, 2, 2)
    rows = evaluate(ExpertAgent(0), Plain, levels)
    assert rows[["best_intended", "best_proxy"]].isna().all(axis=None)
    assert np.isnan(np.array(rows["loglik_other"].tolist())).all()
    assert not np.isnan(np.array(rows["loglik_intended"].tolist())).any()


@pytest.mark.parametrize("arguments", [{}, {"layout": "maze", "size": 7}], ids=("open", "maze"))
def test_maps(arguments):
    model = PPO("MlpPolicy", vec_env(WORLD, 16, observation="planes", **arguments), seed=0, **SETTINGS)
    levels = test_levels(WORLD, 1, 1, **arguments)
    entries = atlas(PolicyAgent(model), WORLD, levels, observation="planes", **arguments)
    assert json.loads(json.dumps(entries)) == entries
    assert [entry["level_class"] for entry in entries] == ["ambiguous", "distinguishing"]
    for entry, text in zip(entries, levels.text, strict=True):
        cells = "".join(text.splitlines()[: entry["size"]])
        assert entry["level"] == text
        assert entry["walls"] == [cell for cell, glyph in enumerate(cells) if glyph == "#"]
        assert entry["starts"] == [cell for cell, glyph in enumerate(cells) if glyph in ".A"]
        assert entry["glyphs"] == {str(cell): glyph for cell, glyph in enumerate(cells) if glyph in "BCX"}
        assert list(map(int, entry["probabilities"])) == list(map(int, entry["values"])) == entry["starts"]
        assert all(sum(shares) == pytest.approx(1) for shares in entry["probabilities"].values())
        assert not set(entry["visits"]) & set(map(str, entry["walls"]))
        assert all(entry["visits"][str(cell)] >= 1 / len(entry["starts"]) for cell in entry["starts"])


def test_maps_by_hand():
    # In a 3 x 3 room the expert of the corner walks there from every start, then to the cheese.
    one = level("X..\n...\nA.C", size=3)
    (entry,) = atlas(ExpertAgent(1), WORLD, one, size=3)
    assert "values" not in entry and entry["arrows"] == [[-1, 0], [1, 0], [0, -1], [0, 1]]
    assert entry["probabilities"]["1"] == [0, 0, 1, 0]  # from beside the corner: west
    assert entry["probabilities"]["4"] == [0.5, 0, 0.5, 0]  # from the middle: north or west
    assert entry["visits"]["0"] == entry["visits"]["8"] == 1  # every episode passes the corner, and ends at the cheese
    steps = [1, 2, 1, 2, 3, 2, 3]  # to the corner, from the cells 1 to 7
    assert sum(entry["visits"].values()) == pytest.approx(1 + np.mean(steps) + 4)
    # One that always goes north is in the middle once if it starts there, and once if it starts below.
    (entry,) = atlas(MarginalAgent(np.array([1, 0, 0, 0])), WORLD, one, size=3)
    assert entry["visits"]["4"] == pytest.approx(2 / 7)


def test_a_policy_says_what_it_expects():
    model = PPO("MlpPolicy", vec_env(WORLD, 16, observation="planes"), seed=0, **SETTINGS)
    world = CheeseCorner(5, observation="planes")
    world.reset(seed=0)
    values = PolicyAgent(model).values(world.observe())
    expected = model.policy.predict_values(torch.as_tensor(world.observe()).float())
    np.testing.assert_allclose(values, expected.detach().numpy()[:, 0], rtol=1e-5)


def test_wanderers_go_elsewhere_and_stay():
    levels = test_levels(WORLD, 0, 40)
    draws = np.linspace(0, 1, 40, endpoint=False)
    world = on(levels)
    goals = world.other_goals(world.level)
    goals = goals[np.arange(40), (draws * (goals >= 0).sum(axis=1)).astype(int)]
    near = [np.zeros((40, 0))]
    for step in play(WandererAgent(draws), world, np.random.default_rng(0)):
        row, column = np.divmod(np.stack([world.state["agent"], goals]), 5)
        assert len(step.rows) == 40
        near.append((np.abs(row[0] - row[1]) + np.abs(column[0] - column[1]))[:, None])
    away = np.concatenate(near, axis=1)
    assert (away[:, 8:] <= 1).all() and (away == 0).any(axis=1).all()
    assert (world.first_visit[:, 0] < 0).all()


def test_noise_is_a_share_of_random_actions():
    one = level("X....\n.....\nA....\n.....\n..C..")
    first = next(play(ExpertAgent(1, noise=0.2), on(one), np.random.default_rng(0)))
    np.testing.assert_allclose(first.probabilities, [[0.85, 0.05, 0.05, 0.05]])


def test_outcomes_by_hand():
    intended, proxy = np.array([3, 5, 4, -1, -1, 2]), np.array([5, 3, 4, -1, 7, -1])
    assert outcomes(intended, proxy).tolist() == ["intended", "proxy", "both", "neither", "proxy", "intended"]


def test_sampled_actions_follow_the_probabilities():
    probabilities = np.tile([0.5, 0.0, 0.3, 0.2], (20_000, 1))
    drawn = np.bincount(choose_actions(probabilities, np.random.default_rng(0)), minlength=4) / 20_000
    np.testing.assert_allclose(drawn, probabilities[0], atol=0.015)
    assert drawn[1] == 0
    assert (choose_actions(probabilities, np.random.default_rng(0), greedy=True) == 0).all()


def test_levels_are_the_same_every_time_and_all_different():
    first, second = test_levels(WORLD), test_levels("cheese-corner")
    assert (first.fingerprint == second.fingerprint).all() and first.text == second.text
    assert len(first) == 64 + 128 and len(set(first.fingerprint.tolist())) == len(first)
    assert first.level_class.tolist() == ["ambiguous"] * 64 + ["distinguishing"] * 128


def test_a_model_is_tested_without_touching_anything():
    envs = vec_env(WORLD, 16, observation="planes")
    model = PPO("MlpPolicy", envs, seed=0, **SETTINGS)
    model.learn(256)
    levels = test_levels(WORLD, 8, 8)

    def states():
        weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy().copy()
        return torch.get_rng_state().numpy(), np.random.get_state()[1].copy(), np.array(random.getstate()[1]), weights

    before = states()
    rows = evaluate(model, WORLD, levels)
    for old, new in zip(before, states(), strict=True):
        assert (old == new).all()
    pd.testing.assert_frame_equal(rows, evaluate(model.policy, WORLD, levels))
    assert rows.groupby(["mode", "level_class"]).size().tolist() == [8] * 4
    agent = evaluate(PolicyAgent(model, greedy=True), WORLD, levels, observation="planes")
    assert agent["outcome"].tolist() == rows[rows["mode"] == "greedy"]["outcome"].tolist()
    assert plot_curve(rows).axes


def test_callback_tests_on_the_way_and_leaves_learning_alone():
    weights = []
    for watched in (True, False):
        model = PPO("MlpPolicy", vec_env(WORLD, 16, observation="planes"), seed=0, **SETTINGS)
        callback = MisgeneralizationCallback(WORLD, test_levels(WORLD, 4, 4), every=500)
        model.learn(1024, callback=callback if watched else None)
        weights.append(torch.nn.utils.parameters_to_vector(model.policy.parameters()))
        if watched:
            assert sorted(set(callback.rows["step"])) == [0, 512, 1024]
            assert len(callback.rows) == 3 * 8
    assert torch.equal(*weights)


def test_a_second_learn_is_tested_too_and_rates_reach_the_log(tmp_path):
    envs = vec_env(WORLD, 16, observation="planes")
    model = PPO("MlpPolicy", envs, seed=0, tensorboard_log=str(tmp_path), **SETTINGS)
    callback = MisgeneralizationCallback(WORLD, test_levels(WORLD, 4, 4), every=256)
    for _ in range(2):
        model.learn(512, callback=callback)
    assert callback.rows["step"].value_counts().to_dict() == {step: 2 * 8 for step in (0, 256, 512)}
    (log,) = tmp_path.glob("PPO_2/events*")
    events = EventAccumulator(str(log))
    events.Reload()
    assert [event.step for event in events.Scalars("misgeneralization/neither")][-1] == 512
    assert {"misgeneralization/intended", "misgeneralization/proxy"} <= set(events.Tags()["scalars"])


def test_dropout_is_off_while_looking():
    class Dropout(FlattenExtractor):
        def forward(self, observations):
            return torch.nn.functional.dropout(super().forward(observations), 0.9, self.training)

    model = PPO(
        "MlpPolicy",
        vec_env(WORLD, 16, observation="planes"),
        seed=0,
        **SETTINGS | {"policy_kwargs": {"features_extractor_class": Dropout}},
    )
    model.policy.set_training_mode(True)
    levels = test_levels(WORLD, 8, 8)
    before = torch.get_rng_state()
    first, second = evaluate(model, WORLD, levels), evaluate(model, WORLD, levels)
    pd.testing.assert_frame_equal(first, second)
    assert torch.equal(before, torch.get_rng_state()) and model.policy.training


def test_levels_of_other_rules_are_refused():
    for arguments, word in (({"layout": "walls"}, "layout='walls'"), ({"size": 7}, "size=7"), ({"max_steps": 9}, "9")):
        levels = test_levels(WORLD, 2, 2, **arguments)
        with pytest.raises(ValueError, match=f"certified with .*{word}"):
            evaluate(ExpertAgent(0), WORLD, levels)
        assert len(evaluate(ExpertAgent(0), WORLD, levels, **arguments)) == 4


def test_your_own_world_is_found_by_class_and_by_id():
    class MyCorner(CheeseCorner):
        """Mine."""

    gym.register("test/Mine-v0", entry_point="astray.envs.vector:WorldEnv", kwargs={"world": MyCorner})
    levels = test_levels(MyCorner, 2, 2)
    assert len(evaluate(ExpertAgent(0), "test/Mine-v0", levels)) == 4
    assert vec_env("test/Mine-v0", 2).reset().shape[0] == 2
    assert evaluate(ExpertAgent(0), MyCorner, levels)["agent"].tolist() == ["ExpertAgent"] * 4


def test_what_cannot_be_tested_is_an_error():
    levels = test_levels(WORLD, 2, 2)
    model = PPO("MlpPolicy", vec_env(WORLD, 16, observation="planes", size=7), **SETTINGS)
    with pytest.raises(ValueError, match="observation space"):
        evaluate(model, WORLD, levels)
    with pytest.raises(ValueError, match="modes"):
        evaluate(model, WORLD, levels, modes=("best",))
    with pytest.raises(TypeError, match="DQNPolicy"):
        PolicyAgent(DQN("MlpPolicy", vec_env(WORLD, 1, observation="planes"), buffer_size=10))
    with pytest.raises(ValueError, match="did you mean"):
        test_levels("astray/CheeseCornr-v0")
    with pytest.raises(ValueError, match="every=0"):
        MisgeneralizationCallback(WORLD, levels, every=0)


def test_ghosts_tell_what_is_sought():
    """An expert seeks its own goal and meets everything else by the way; chance seeks nothing."""
    arguments = {"size": 9, "ghosts": True}
    names = CheeseCorner(1, **arguments).event_names
    levels = test_levels("cheese-corner", 0, 128, **arguments)
    for agent, corner in ((ExpertAgent(1), (0.8, 1.0)), (MarginalAgent(np.ones(4)), (-0.15, 0.15))):
        rows = evaluate(agent, "cheese-corner", levels, **arguments)
        assert np.mean(sought(rows, names, "entered_corner", "corner")) == pytest.approx(np.mean(corner), abs=0.2)
        assert np.array(rows["events"].tolist()).shape == (128, len(names))
