"""What was seen and done before is told in front of what is seen now."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from weather import INSTRUCTION, Wardrobe

import astray
from astray.envs.history import TextHistory
from astray.envs.text import TextChoices, decode

assert astray


def test_the_last_steps_of_the_episode_are_told():
    env = TextHistory(gym.make("astray/CheeseCorner-v0", observation="bytes"), steps=2)
    plain = gym.make("astray/CheeseCorner-v0", observation="bytes")
    texts = []
    told, _ = env.reset(seed=3)
    texts.append(decode(plain.reset(seed=3)[0][None])[0])
    assert decode(told[None]) == texts
    names = plain.action_space.texts
    for action in (0, 2, 1):
        told = env.step(action)[0]
        texts.append(decode(plain.step(action)[0][None])[0])
    expected = f"{texts[1]}\n> {names[2]}\n{texts[2]}\n> {names[1]}\n{texts[3]}"
    assert decode(told[None]) == [expected]
    assert env.observation_space.contains(told)
    assert env.observation_space.instruction == plain.observation_space.instruction
    assert decode(env.reset(seed=3)[0][None]) == [texts[0]], "nothing is told of the episode before"


def test_choices_are_told_as_texts():
    env = TextHistory(Wardrobe(), steps=1)
    first, _ = env.reset(seed=0)
    space, plain = env.observation_space, Wardrobe().observation_space
    assert isinstance(space, TextChoices) and space.instruction == INSTRUCTION

    def parts(observation):
        return space.decode(np.concatenate([observation[key] for key in TextChoices.KEYS]))

    text, choices = parts(first)
    later = env.step(0)[0]
    assert parts(later)[0] == f"{text}\n> {choices[0]}\n{text}"
    np.testing.assert_array_equal(later["mask"], first["mask"])
    assert space.max_length == plain.max_length * 2 + plain.max_action_length + 4


def test_it_is_an_environment_and_batches():
    with pytest.warns(UserWarning, match="different from the unwrapped version"):
        check_env(TextHistory(gym.make("astray/CheeseCorner-v0", observation="bytes")), skip_render_check=True)
    envs = make_vec_env(
        "astray/CheeseCorner-v0",
        2,
        env_kwargs={"observation": "bytes"},
        wrapper_class=TextHistory,
        wrapper_kwargs={"steps": 1},
    )
    assert envs.reset().shape == (2, envs.observation_space.max_length)


def test_other_observations_are_refused():
    for env in (gym.make("CartPole-v1"), gym.make("astray/CheeseCorner-v0", observation="planes")):
        with pytest.raises(ValueError, match="TextHistory tells TextBytes or TextChoices"):
            TextHistory(env)
    with pytest.raises(ValueError, match="steps=0"):
        TextHistory(Wardrobe(), steps=0)
