"""Bonuses that a curious agent is compared with: as large but blind, and as varied but indifferent to what is new."""

from typing import ClassVar

import numpy as np
from gymnasium import spaces

from astray.agents.counts import Key
from astray.agents.curiosity import Curiosity, Weight
from astray.agents.transitions import Transitions
from astray.envs import InputError
from astray.envs.levels import Draws, fingerprints


class CuriosityWrapper(Curiosity):
    """A module around another one, which observes and learns as it would alone. Subclasses say what is paid instead.

    It counts as ``episodic``, since what it pays belongs to the moment, and does not promise to fade.
    """

    episodic = True
    fades = False

    def __init__(self, module: Curiosity, weight: Weight | None = None, seed: int = 0):
        """Makes the module.

        Args:
            module: the other one, which belongs to no environments yet.
            weight: what the bonus is multiplied by; by default the other module's weight, which else has no effect.
            seed: of all chance, besides the other module's own.
        """
        super().__init__(module.weight if weight is None else weight, seed)
        self.module = module

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares both."""
        self.module.setup(observation_space, action_space, num_envs)
        super().setup(observation_space, action_space, num_envs)

    def observe(self, transitions: Transitions) -> None:
        """Shows the other module what happened."""
        self.module.observe(transitions)

    def update(self, transitions: Transitions) -> dict[str, float]:
        """Lets the other module learn; returns what it tells."""
        return self.module.update(transitions)


class MatchedNoise(CuriosityWrapper):
    """Noise of the size of another module's bonus, which says nothing about what was done.

    bonus = mean + spread * u, where u is uniform with mean 0 and spread 1, and mean and spread are those of the other
    module's bonuses over about the last ``memory`` steps, before this one. So the noise becomes smaller when curiosity
    does; it may be negative where curiosity is not. u is drawn anew for each step by a hash of seed, environment,
    episode and step. The first step pays 0. Whatever an agent gains by curiosity but not by this, it gains by where the
    bonus lies, and not by being paid more or more variably.

    Attributes:
        memory: the number of steps, of all environments together, after which a bonus counts 1/e of a new one.
    """

    memory: ClassVar[int] = 4096

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares both."""
        super().setup(observation_space, action_space, num_envs)
        self.moments = np.zeros(3)  # sums of 1, bonus and its square, in which old steps fade

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The noise, ``float64[B]``."""
        _, mean, squares = self.moments / max(self.moments[0], 1.0)
        spread = np.sqrt(max(squares - mean**2, 0.0))
        seeds = np.full(len(transitions), self.seed)
        episodes = fingerprints(seeds, transitions.environments, transitions.episodes)
        uniform = Draws(episodes, transitions.steps).uniform("matched noise")
        return mean + spread * np.sqrt(12) * (uniform - 0.5)

    def observe(self, transitions: Transitions) -> None:
        """Follows the size of the other module's bonus, and shows it what happened."""
        bonuses = self.module.bonus(transitions)
        self.moments *= np.exp(-len(bonuses) / self.memory)
        self.moments += [len(bonuses), bonuses.sum(), np.square(bonuses).sum()]
        super().observe(transitions)


class ActionEntropy(Curiosity):
    """The bonus is high for actions that were rarely taken before the same observation, however often it was met.

    bonus = -log((N(s, a) + 1) / (N(s) + A)), where N counts what all environments did so far, this step excluded, and
    A is the number of actions, each of which counts as taken once from the beginning. Its mean over a policy's actions
    is their entropy, as far as counts know it; where s is new, every action pays log A, the entropy of chance. So it
    makes behaviour varied, and pays nothing for coming to what is new.

    To compare with a curious agent of equal coverage, train with weights of, say, 0.001, 0.003, 0.01, ... , and take
    the one with which the number of distinct observations met in training comes nearest to the curious agent's at equal
    steps. ``LifelongCounts(weight=0.0)`` beside it, in either agent, has that number: ``len(module.counts)``.

    Source: Williams and Peng, "Function optimization using connectionist reinforcement learning algorithms", 1991, who
    add the entropy to the reward; here it is that of counts, so that algorithms without probabilities have it too.
    """

    def __init__(self, weight: Weight = 1.0, key: Key | None = None, seed: int = 0):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            key: which observations count as the same, from ``[B, ...]`` to ``[B, ...]``; by default equal ones.
            seed: unused; nothing here is left to chance.
        """
        super().__init__(weight, seed)
        self.key = key
        self.counts: dict[int, list[int]] = {}  # of each action, by observation; the one from the beginning included

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares for environments.

        Raises:
            InputError: actions are not ``Discrete``.
        """
        if not isinstance(action_space, spaces.Discrete):
            raise InputError(f"ActionEntropy counts actions, so they must be Discrete, not {action_space}")
        super().setup(observation_space, action_space, num_envs)
        self.first = int(action_space.start)

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """-log of the frequency, ``float64[B]``."""
        unknown = [1] * self.act.size
        bonuses = np.empty(len(transitions))
        for row, (key, action) in enumerate(self._rows(transitions)):
            counts = self.counts.get(key, unknown)
            bonuses[row] = -np.log(counts[action] / sum(counts))
        return bonuses

    def observe(self, transitions: Transitions) -> None:
        """Counts."""
        for key, action in self._rows(transitions):
            self.counts.setdefault(key, [1] * self.act.size)[action] += 1

    def _rows(self, transitions: Transitions) -> list[tuple[int, int]]:
        seen = transitions.observations
        keys = self.read.keys(seen if self.key is None else self.key(seen)).tolist()
        actions = np.asarray(transitions.actions).reshape(-1) - self.first
        return list(zip(keys, actions.tolist(), strict=True))
