"""Exact counts of observations: the tabular bonus that others approximate."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from astray.agents.curiosity import Curiosity, Weight
from astray.agents.reading import ObservationReader
from astray.agents.transitions import Transitions

Key = Callable[[np.ndarray], np.ndarray]
"""What of observations is counted, from ``[B, ...]`` to ``[B, ...]``."""


class LifelongCounts(Curiosity):
    """bonus = 1 / sqrt(N(s')), where N counts how often s' was come to, this time included.

    Counts are exact, of all environments together and over all episodes. Where several environments come to one
    observation in the same step, they are counted one after another.

    Source: Strehl and Littman, "An analysis of model-based interval estimation for Markov decision processes", 2008,
    equation 5 (with counts of states); Kolter and Ng, 2009, for other powers.
    """

    def __init__(self, weight: Weight = 1.0, key: Key | None = None, seed: int = 0):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            key: what of observations is counted, from ``[B, ...]`` to ``[B, ...]``; by default all of it, exactly. For
                observations that are never met twice, round them here.
            seed: unused; nothing here is left to chance.
        """
        super().__init__(weight, seed)
        self.key = key
        self.counts: dict[int, int] = {}

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """1 / sqrt(N), ``float64[B]``."""
        return 1 / np.sqrt(self._visits(transitions, {}))

    def observe(self, transitions: Transitions) -> None:
        """Counts."""
        self._visits(transitions, self.counts)

    def _visits(self, transitions: Transitions, into: dict[int, int]) -> np.ndarray:
        """N for each row, which is counted into a dict: the module's own, or a fresh one on top of it."""
        visits = np.empty(len(transitions))
        for row, key in enumerate(_keys(self.read, self.key, transitions.next_observations)):
            visits[row] = into[key] = into.get(key, self.counts.get(key, 0)) + 1
        return visits


class EpisodeVisits:
    """How often the episode in each environment was at an observation.

    Args:
        read: of these observations.
        key: what of them is counted; all of it by default.
    """

    def __init__(self, read: ObservationReader, key: Key | None):
        self.read, self.key = read, key
        self.counts: dict[int, dict[int, int]] = {}  # of the episode in each environment, by key

    def visits(self, transitions: Transitions) -> np.ndarray:
        """N(s'), this time and the episode's start included, ``float64[B]``; one step of each environment."""
        return np.array([seen.get(end, 0) + 1.0 for _, seen, end in self._rows(transitions)])

    def observe(self, transitions: Transitions) -> None:
        """Counts s'."""
        for environment, seen, end in self._rows(transitions):
            seen[end] = seen.get(end, 0) + 1
            self.counts[environment] = seen

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"counts": {environment: dict(seen) for environment, seen in self.counts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state_dict``."""
        self.counts = {environment: dict(seen) for environment, seen in state["counts"].items()}

    def _rows(self, transitions: Transitions) -> list[tuple[int, dict[int, int], int]]:
        """Of each step, the environment, what its episode has seen before, and the key of s'."""
        starts, ends = (
            _keys(self.read, self.key, seen) for seen in (transitions.observations, transitions.next_observations)
        )
        where = zip(transitions.environments.tolist(), transitions.steps.tolist(), starts, ends, strict=True)
        return [(row, self.counts[row] if step else {start: 1}, end) for row, step, start, end in where]


class EpisodicCounts(Curiosity):
    """bonus = 1 / sqrt(N(s')), where N counts how often the episode was at s', this time and its start included.

    Source: Raileanu and Rocktäschel, "RIDE", ICLR 2020, whose episodic factor this is.
    """

    episodic = True

    def __init__(self, weight: Weight = 1.0, key: Key | None = None, seed: int = 0):
        """Makes the module; arguments are those of ``LifelongCounts``."""
        super().__init__(weight, seed)
        self.key = key

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares for environments."""
        super().setup(observation_space, action_space, num_envs)
        self.visited = EpisodeVisits(self.read, self.key)

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """1 / sqrt(N), ``float64[B]``."""
        return 1 / np.sqrt(self.visited.visits(transitions))

    def observe(self, transitions: Transitions) -> None:
        """Counts."""
        self.visited.observe(transitions)


def _keys(read: ObservationReader, key: Key | None, observations: np.ndarray) -> list[int]:
    return read.keys(observations if key is None else key(observations)).tolist()
