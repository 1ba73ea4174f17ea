"""Pseudo-counts of an episode from the nearest of its observations."""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from astray.agents.curiosity import Weight
from astray.agents.dynamics import InverseFeatures
from astray.agents.embedding import Embed
from astray.agents.networks import require_positive, where_begun
from astray.agents.transitions import Transitions

EPSILON = 1e-4
CLUSTER = 0.008
SMALLEST = 1e-3
LARGEST = 8.0
"""The paper's epsilon, xi, c and s_m."""
FIRST_PLACES = 64


class Neighbours(NamedTuple):
    """What the episode in each of B environments knows.

    Attributes:
        features: of the observation that was come to, ``float32[B, features]``.
        start: of the episode's first observation, where this is its first step, ``float32[B, features]``, else zeros.
        squared: squared distances to the nearest that are known, ``float32[B, up to k]``; infinite where there are
            fewer.
    """

    features: Tensor
    start: Tensor
    squared: Tensor


class PseudoCounts(InverseFeatures):
    """The bonus is large where the episode has been near the next observation rarely, by a kernel.

    bonus = 1 / s with s = sqrt(sum_i K(d_i^2)) + c, over the k nearest of the features that the episode had before,
    its start included; 0 where s > s_m. K(d^2) = epsilon / (max(d^2 / m - xi, 0) + epsilon), where m is the mean of
    such d^2 over all steps so far, this one included. Features are of an inverse model; the memory holds them as they
    were when they were seen. Bonuses lie between 0.3 and 1000, and are about 30 at what is far from k others.

    Source: Badia et al., "Never give up: Learning directed exploration strategies", ICLR 2020, equations 2
    and 3 and algorithm 1, with the constants of its table of hyperparameters. Its mean is a moving one.
    """

    episodic = True

    def __init__(
        self,
        weight: Weight = 1.0,
        k: int = 10,
        memory: int = 5000,
        learning_rate: float = 1e-3,
        features: int = 32,
        embed: Embed | None = None,
        seed: int = 0,
    ):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            k: how many neighbours count.
            memory: how many of an episode's observations are remembered, the last ones (30,000 in the paper).
            learning_rate: of Adam.
            features: the number of features, and the width of hidden layers.
            embed: what texts are to the networks; see ``LearnedCuriosity``.
            seed: of initial weights and minibatches.

        Raises:
            InputError: a number is not positive.
        """
        super().__init__(weight, learning_rate, features, embed, seed)
        require_positive(k=k, memory=memory)
        self.k, self.memory = k, memory

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.known = torch.zeros(num_envs, min(FIRST_PLACES, self.memory), self.features)
        self.count = torch.zeros(num_envs, dtype=torch.long)  # of observations in the episode, forgotten ones too
        self.distance_sum = self.distance_count = 0.0

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """1 / s, ``float64[B]``."""
        squared = self.answered(transitions, self._neighbours).squared.double()
        here = squared.isfinite()
        sums = self.distance_sum + squared.where(here, 0.0).sum(dim=1)
        means = sums / (self.distance_count + here.sum(dim=1))
        away = (squared / means.clamp(min=1e-12)[:, None] - CLUSTER).clamp(min=0)
        similarity = (EPSILON / (away + EPSILON)).sum(dim=1).sqrt() + SMALLEST
        return torch.where(similarity > LARGEST, 0.0, 1 / similarity).numpy()

    def observe(self, transitions: Transitions) -> None:
        """Remembers what was come to, and updates the mean distance."""
        neighbours = self.recalled(transitions, self._neighbours)
        distances = neighbours.squared[neighbours.squared.isfinite()]
        self.distance_sum += distances.double().sum().item()
        self.distance_count += distances.numel()
        rows, new = where_begun(transitions)
        self.known[rows[new], 0] = neighbours.start[new]
        self.count[rows[new]] = 1
        places = self.count[rows] % self.memory
        while places.max() >= self.known.shape[1]:
            self.known = torch.cat([self.known, torch.zeros_like(self.known)], dim=1)[:, : self.memory]
        self.known[rows, places] = neighbours.features
        self.count[rows] += 1

    def _neighbours(self, transitions: Transitions) -> Neighbours:
        rows, new = where_begun(transitions)
        features = self.encoded(transitions.next_observations)
        start = torch.zeros_like(features)
        start[new] = self.encoded(transitions.observations[new.numpy()])
        count = torch.where(new, 1, self.count[rows]).clamp(max=self.memory)
        known = self.known[rows, : int(count.max())]
        known[new, 0] = start[new]
        # exact differences: products of large features would leave a distance where there is none
        apart = torch.cdist(features[:, None], known, compute_mode="donot_use_mm_for_euclid_dist")[:, 0].square()
        apart[torch.arange(known.shape[1]) >= count[:, None]] = torch.inf
        squared = apart.topk(min(self.k, known.shape[1]), largest=False).values
        return Neighbours(features, start, squared)
