"""Steps that are made up, for tests of rewards and curiosity modules."""

import numpy as np

from astray.agents import Transitions


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
