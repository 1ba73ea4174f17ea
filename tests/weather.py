"""Bandits in text: dress for the weather."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from astray.envs.text import NamedDiscrete, TextBytes, TextChoices, encode

INSTRUCTION = "Dress for the weather."
WEATHER = ["It rains.", "The sun shines."]
ACTIONS = ["take the umbrella", "take the hat"]


class Weather(gym.Env):
    """Which of two actions is right depends on the text. One step an episode, reward 1 or 0."""

    def __init__(self, truncate: bool = False):
        self.observation_space = TextBytes(16, INSTRUCTION)
        self.action_space = NamedDiscrete(ACTIONS)
        self.truncate = truncate

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.fit = int(self.np_random.integers(2))
        return self.observe(), {}

    def step(self, action):
        return self.observe(), float(action == self.fit), not self.truncate, self.truncate, {}

    def observe(self) -> np.ndarray:
        return encode([WEATHER[self.fit]], 16)[0]


class Wardrobe(gym.Env):
    """The same, with one to three things to take; the one that is right stands anywhere, or is not there."""

    def __init__(self):
        self.observation_space = TextChoices(16, 4, 24, INSTRUCTION)
        self.action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        fit = int(self.np_random.integers(2))
        things = self.np_random.permutation([*ACTIONS, "stay"])[: self.np_random.integers(1, 4)].tolist()
        self.right = things.index(ACTIONS[fit]) if ACTIONS[fit] in things else None
        self.count = len(things)
        self.observation = self.observation_space.encode(WEATHER[fit], things)
        return self.observation, {}

    def step(self, action):
        assert action < self.count, "an action that is not possible"
        return self.observation, float(action == self.right), True, False, {}
