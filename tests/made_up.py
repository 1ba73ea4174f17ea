"""Steps that are made up, for tests of rewards and curiosity modules."""

import numpy as np
from gymnasium import spaces

from astray.agents import Transitions

FOUR = spaces.Discrete(4)
LINE = spaces.Box(-1.0, 1.0, (3,), np.float32)
A, B, C = [0.5, 0.0, -0.5], [0.0, 1.0, 0.25], [0.3, -0.2, 0.9]


def made_up(observations, next_observations, actions=None, **more) -> Transitions:
    """Steps of as many environments as there are rows; the first of their episodes, unless ``more`` says so."""
    count = len(next_observations)
    no = np.zeros(count, bool)
    fields = dict(
        observations=np.asarray(observations),
        actions=np.zeros(count, int) if actions is None else np.asarray(actions),
        next_observations=np.asarray(next_observations),
        terminated=no,
        truncated=no,
        rewards=np.zeros(count),
        happened={},
        ever={},
        environments=np.arange(count),
        episodes=np.zeros(count, int),
        steps=np.zeros(count, int),
    )
    return Transitions(**fields | {name: _array(value) for name, value in more.items()})


def _array(value):
    return {key: np.asarray(part) for key, part in value.items()} if isinstance(value, dict) else np.asarray(value)


def steps(before, after, step=0, actions=None, **more):
    """Steps from observations to others, one in each environment."""
    return made_up(before, after, actions, steps=np.full(len(after), step), **more)


def made(module, observation_space=LINE, action_space=FOUR, num_envs=2, **arguments):
    """A module that is set up."""
    module = module(**arguments)
    module.setup(observation_space, action_space, num_envs)
    return module
