"""Everything that acts: ``act(observations, infos, rng) -> actions``, in batches.

``infos`` is a dict of arrays with one row per observation: ``rows`` (``int[B]``, which episodes they are, since those
that are over are left out), ``goals`` (first visits, ``int64[B, G]``), and for experts ``optimal_actions``
(``bool[B, G, A]``, in the order of the world's goals) and ``other_values`` (``float64[B, K, A]``, see
``World.other_values``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

Infos = Mapping[str, np.ndarray]


class Agent(Protocol):
    """Chooses an action for every observation."""

    def act(self, observations: Any, infos: Infos, rng: np.random.Generator) -> np.ndarray:
        """Actions, ``int64[B]``; all chance comes from ``rng``."""
        ...


class StochasticAgent(ABC):
    """An agent that samples from its action probabilities, or takes the most probable action if ``greedy``."""

    greedy = False

    @abstractmethod
    def probabilities(self, observations: Any, infos: Infos) -> np.ndarray:
        """Action probabilities, ``float64[B, A]``."""

    def act(self, observations: Any, infos: Infos, rng: np.random.Generator) -> np.ndarray:
        """Actions, ``int64[B]``."""
        return choose_actions(self.probabilities(observations, infos), rng, self.greedy)


def choose_actions(probabilities: np.ndarray, rng: np.random.Generator, greedy: bool = False) -> np.ndarray:
    """Actions from probabilities ``float64[B, A]``: sampled, or the most probable (the first of equals)."""
    if greedy:
        return probabilities.argmax(axis=1)
    reached = probabilities.cumsum(axis=1)
    # Scaled by the last sum, so that rounding never leaves a draw beyond the end.
    return (rng.random((len(reached), 1)) * reached[:, -1:] >= reached).sum(axis=1)


class PolicyAgent(StochasticAgent):
    """A Stable-Baselines3 actor-critic policy, frozen: no gradient, no bonus, no global random state."""

    def __init__(self, model: BaseAlgorithm | ActorCriticPolicy, greedy: bool = False):
        policy = model.policy if isinstance(model, BaseAlgorithm) else model
        if not isinstance(policy, ActorCriticPolicy):
            raise TypeError(f"model has a {type(policy).__name__}, which gives no action probabilities")
        self.policy, self.greedy = policy, greedy

    def probabilities(self, observations: np.ndarray, infos: Infos) -> np.ndarray:
        """The policy's action probabilities, ``float64[B, A]``."""
        with self._looking():
            distribution = self.policy.get_distribution(self.policy.obs_to_tensor(observations)[0]).distribution
        assert isinstance(distribution, torch.distributions.Categorical)
        return distribution.probs.double().cpu().numpy()

    def values(self, observations: np.ndarray) -> np.ndarray:
        """What the policy expects to earn from here on, by its own value estimate, ``float64[B]``."""
        with self._looking():
            values = self.policy.predict_values(self.policy.obs_to_tensor(observations)[0])
        return values[:, 0].double().cpu().numpy()

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """No gradient, and no dropout."""
        training = self.policy.training
        self.policy.set_training_mode(False)
        try:
            with torch.no_grad():
                yield
        finally:
            self.policy.set_training_mode(training)


class MarginalAgent(StochasticAgent):
    """State-blind: draws every action from one fixed distribution, whatever it sees.

    Given a trained agent's own action frequencies it shows what that agent would earn by habit alone; with a
    uniform one it is the random agent.
    """

    def __init__(self, marginal: np.ndarray):
        self.marginal = np.asarray(marginal, np.float64) / np.sum(marginal)

    def probabilities(self, observations: Any, infos: Infos) -> np.ndarray:
        """The same row for every observation, ``float64[B, A]``."""
        return np.tile(self.marginal, (len(observations), 1))


class ExpertAgent(StochasticAgent):
    """Acts optimally for one goal, then for the intended one; equally good actions are equally likely.

    Args:
        goal: its place among the world's goals.
        noise: the share of actions that are drawn at random instead.
    """

    def __init__(self, goal: int, noise: float = 0.0):
        self.goal, self.noise = goal, noise

    def probabilities(self, observations: Any, infos: Infos) -> np.ndarray:
        """Equal shares of the optimal actions, ``float64[B, A]``."""
        return _equal_shares(infos["optimal_actions"][:, self.goal], self.noise)


class WandererAgent(StochasticAgent):
    """Goes after something that the world does not declare: in each episode optimally to another place, then stays.

    Args:
        draws: which of a level's other goals each episode is about, ``float[B]`` in [0, 1).
    """

    def __init__(self, draws: np.ndarray):
        self.draws = draws

    def probabilities(self, observations: Any, infos: Infos) -> np.ndarray:
        """Equal shares of the optimal actions, ``float64[B, A]``."""
        values = infos["other_values"]
        count = (~np.isnan(values[:, :, 0])).sum(axis=1)  # a level's goals come first, then NaN
        values = values[np.arange(len(values)), (self.draws[infos["rows"]] * count).astype(int)]
        return _equal_shares(values == values.max(axis=1, keepdims=True))


def _equal_shares(actions: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Probabilities from sets of actions (``bool[B, A]``; all of them where there is none)."""
    shares = np.where(actions.any(axis=1, keepdims=True), actions, True).astype(np.float64)
    return (1 - noise) * shares / shares.sum(axis=1, keepdims=True) + noise / shares.shape[1]
