"""Bonuses of the moment in a replay buffer, and what DQN gets of a reward stack."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from test_rewards import WORLD, Constant, Unsorted

from astray.agents import RND, EpisodicCounts, LifelongCounts, RelabelledReplayBuffer, vec_env, with_rewards


def test_bonuses_in_a_replay_buffer_are_those_of_now():
    modules = {"lifelong": LifelongCounts(), "episodic": EpisodicCounts(0.5)}
    envs = with_rewards(vec_env(WORLD, 4, observation="planes"), "-0.25*step", modules)
    buffer = {"replay_buffer_class": RelabelledReplayBuffer, "replay_buffer_kwargs": {"rewards": envs.rewards}}
    model = DQN("MlpPolicy", envs, buffer_size=4_000, learning_starts=100, train_freq=4, seed=0, device="cpu", **buffer)
    model.learn(800)
    assert model.replay_buffer is not None
    drawn = model.replay_buffer.sample(64)
    counts = modules["lifelong"].counts
    keys = modules["lifelong"].read.keys(drawn.next_observations.numpy().astype(np.uint8)).tolist()
    assert max(map(keys.count, keys)) > 1
    now, rewards = {}, drawn.rewards.flatten().tolist()
    for key, reward in zip(keys, rewards, strict=True):
        now[key] = now.get(key, counts[key]) + 1
        episodic = 2 * (reward + 0.25 - now[key] ** -0.5)
        assert min(abs(episodic - n**-0.5) for n in range(1, 20)) < 1e-5


class Picture(gym.Env):
    """Shows a picture with its channels last."""

    observation_space = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    action_space = spaces.Discrete(2)


@pytest.mark.parametrize(("env", "policy"), [(Picture, "CnnPolicy"), (Unsorted, "MultiInputPolicy")])
def test_a_replay_buffer_of_other_observations_than_modules_see_is_refused(env, policy):
    envs = with_rewards(make_vec_env(env, 1), intrinsic={"rnd": RND()})  # around it, channels are put first
    buffer = {"replay_buffer_class": RelabelledReplayBuffer, "replay_buffer_kwargs": {"rewards": envs.rewards}}
    with pytest.raises(ValueError, match="must be one array, and what the modules see"):
        DQN(policy, envs, buffer_size=10, **buffer)


def test_normalised_environments_around_the_stack_reach_dqn():
    envs = VecNormalize(with_rewards(vec_env(WORLD, 1, observation="planes"), "step", {"one": Constant()}))
    model = DQN("MlpPolicy", envs, learning_starts=10, seed=0, device="cpu")
    model.learn(40)
    assert model.replay_buffer is not None
    assert (model.replay_buffer.rewards[:40] == 2).all()
