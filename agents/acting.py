"""Everything that acts: ``act(observations, infos, rng) -> actions``, in batches.

``infos`` is a dict of arrays with one row per observation; ``optimal_actions`` (``bool[B, G, A]``, in the order of
the world's goals) is there for experts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
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
        training = self.policy.training
        self.policy.set_training_mode(False)
        with torch.no_grad():
            tensor, _ = self.policy.obs_to_tensor(observations)
            distribution = self.policy.get_distribution(tensor).distribution
        self.policy.set_training_mode(training)
        assert isinstance(distribution, torch.distributions.Categorical)
        return distribution.probs.double().cpu().numpy()


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
    """Acts optimally for one goal, then for the intended one; equally good actions are equally likely."""

    def __init__(self, goal: int):
        self.goal = goal

    def probabilities(self, observations: Any, infos: Infos) -> np.ndarray:
        """Equal shares of the optimal actions, ``float64[B, A]``."""
        optimal = infos["optimal_actions"][:, self.goal].astype(np.float64)
        optimal[optimal.sum(axis=1) == 0] = 1.0
        return optimal / optimal.sum(axis=1, keepdims=True)
