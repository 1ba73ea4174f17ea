"""What happened in one step of several environments, as rewards and curiosity modules see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Transitions:
    """B steps. As ``with_rewards`` makes them, one of each environment.

    Attributes:
        observations: what the agent saw, ``[B, ...]``; what was a dict or tuple, as rows (``reading.as_rows``).
        actions: what it did, ``[B, ...]``.
        next_observations: what it saw next, ``[B, ...]``: at an episode's end the true last observation, never the
            next episode's first.
        terminated: ``bool[B]``, the episode came to an end of its own.
        truncated: ``bool[B]``, it was cut off; never true together with ``terminated``.
        rewards: the world's own reward, ``float64[B]``.
        happened: name to ``float64[B]``: 1 where an event happened, where a goal was reached for the first time in
            the episode, and under ``step`` everywhere; under ``world`` the world's own reward.
        ever: name to ``bool[B]``: whether an event has happened in the episode, or a goal was reached, this step
            included.
        environments: number of the environment, ``int64[B]``.
        episodes: number of the episode in its environment, ``int64[B]``.
        steps: number of the step in its episode, from 0, ``int64[B]``.
    """

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    rewards: np.ndarray
    happened: Mapping[str, np.ndarray]
    ever: Mapping[str, np.ndarray]
    environments: np.ndarray
    episodes: np.ndarray
    steps: np.ndarray

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def done(self) -> np.ndarray:
        """Whether the episode is over, for either reason, ``bool[B]``."""
        return self.terminated | self.truncated

    def __getitem__(self, rows: np.ndarray | slice) -> "Transitions":
        """Some of the steps."""
        return Transitions(**{name: _each(lambda part: part[rows], value) for name, value in vars(self).items()})

    @staticmethod
    def joined(parts: Sequence["Transitions"]) -> "Transitions":
        """All steps of several, in order.

        Args:
            parts: at least one.
        """
        columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        return Transitions(**{name: _each(lambda *arrays: np.concatenate(arrays), *c) for name, c in columns.items()})


def _each(function: Callable[..., np.ndarray], *values: Any) -> Any:
    """A function of arrays, or of each array in mappings."""
    if isinstance(values[0], Mapping):
        return {name: function(*(value[name] for value in values)) for name in values[0]}
    return function(*values)
