"""Evaluation: what rows say, by hand; and that looking changes nothing."""

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
from astray.agents.acting import choose_actions
from astray.envs.cheese_corner import CheeseCorner
from astray.experiments import MisgeneralizationCallback, evaluate, plot_curve, test_levels
from astray.experiments.evaluation import outcomes, play

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
