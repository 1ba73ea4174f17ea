"""Exact counts of observations: the tabular bonus that others approximate."""

from collections.abc import Callable

import numpy as np

from astray.agents.curiosity import Curiosity, Weight
from astray.agents.transitions import Transitions

Key = Callable[[np.ndarray], np.ndarray]
Memory = dict[int, dict[int, int]]
"""Environment to key to how often its episode was there."""


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
        self.key = key or (lambda observations: observations)
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
        for row, key in enumerate(self.read.keys(self.key(transitions.next_observations)).tolist()):
            visits[row] = into[key] = into.get(key, self.counts.get(key, 0)) + 1
        return visits


class EpisodicCounts(Curiosity):
    """bonus = 1 / sqrt(N(s')), where N counts how often the episode was at s', this time and its start included.

    Source: Raileanu and Rocktäschel, "RIDE", ICLR 2020, whose episodic factor this is.
    """

    episodic = True

    def __init__(self, weight: Weight = 1.0, key: Key | None = None, seed: int = 0):
        """Makes the module; arguments are those of ``LifelongCounts``."""
        super().__init__(weight, seed)
        self.key = key or (lambda observations: observations)
        self.memory: Memory = {}

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """1 / sqrt(N), ``float64[B]``."""
        return 1 / np.sqrt(self.visits(transitions))

    def observe(self, transitions: Transitions) -> None:
        """Counts."""
        self.visits(transitions, remember=True)

    def visits(self, transitions: Transitions, remember: bool = False) -> np.ndarray:
        """N, ``float64[B]``: one step of each environment, and its episode's observations before."""
        starts = self.read.keys(self.key(transitions.observations)).tolist()
        ends = self.read.keys(self.key(transitions.next_observations)).tolist()
        visits = np.empty(len(transitions))
        where = zip(transitions.environments.tolist(), transitions.steps.tolist(), starts, ends, strict=True)
        for row, (environment, step, start, end) in enumerate(where):
            seen = self.memory[environment] if step else {start: 1}
            visits[row] = count = seen.get(end, 0) + 1
            if remember:
                seen[end] = count
                self.memory[environment] = seen
        return visits
