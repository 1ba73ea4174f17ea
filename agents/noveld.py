"""Novelty difference."""

import numpy as np
import torch
from gymnasium import spaces

from astray.agents.counts import EpisodeVisits, Key
from astray.agents.curiosity import Weight
from astray.agents.embedding import Embed
from astray.agents.rnd import RND
from astray.agents.transitions import Transitions
from astray.envs import InputError


class NovelD(RND):
    """The bonus is how much newer the next observation is than this one, at its first visit in the episode.

    bonus = max(N(s') - alpha N(s), 0) * [N_ep(s') = 1]. Novelty N is the error of random network distillation, divided
    by the spread of errors so far (the paper does not divide); the episode's count N_ep is exact and knows the
    episode's start.

    Source: Zhang et al., "NovelD: A simple yet effective exploration criterion", NeurIPS 2021, section 3.
    """

    episodic = True
    discount = 0.0

    def __init__(
        self,
        weight: Weight = 1.0,
        alpha: float = 0.5,
        key: Key | None = None,
        learning_rate: float = 1e-3,
        features: int = 64,
        embed: Embed | None = None,
        seed: int = 0,
    ):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            alpha: how much of the novelty before is subtracted, in 0..1.
            key: what of observations the episode counts; see ``LifelongCounts``.
            learning_rate: of Adam.
            features: the number of features, and the width of hidden layers.
            embed: what texts are to the networks; see ``LearnedCuriosity``.
            seed: of initial weights and minibatches.

        Raises:
            InputError: a number is out of its range.
        """
        super().__init__(weight, learning_rate, features, embed, seed)
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha={alpha} must lie in 0..1")
        self.alpha, self.key = alpha, key

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.visited = EpisodeVisits(self.read, self.key)

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The gain in novelty at a first visit, ``float64[B]``."""
        with torch.no_grad():
            before, after = self.errors(transitions.observations), self.errors(transitions.next_observations)
        gain = (after - self.alpha * before).clamp(min=0).double().numpy() / self.scale.spread
        return gain * (self.visited.visits(transitions) == 1)

    def observe(self, transitions: Transitions) -> None:
        """Updates the statistics, and counts."""
        super().observe(transitions)
        self.visited.observe(transitions)
