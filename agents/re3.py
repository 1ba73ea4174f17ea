"""Random encoders for efficient exploration."""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from astray.agents.curiosity import Curiosity, Weight
from astray.agents.embedding import Embed, reader
from astray.agents.networks import encoder, require_positive, seeded
from astray.agents.transitions import Transitions
from astray.envs import InputError


class RE3(Curiosity):
    """The bonus is the distance to the k-th nearest of the observations so far, in features of a random network.

    bonus = log(||y - y_k|| + 1), where y are the features of s' under a fixed random network, and y_k is the k-th
    nearest in a memory of the last observations of all environments, which this step has not entered yet. While fewer
    than k are known, it is 0: nothing can be said about what is new. The paper looks for y_k in the batch that is
    learned from, which holds later steps too; here a bonus has to be known when it is paid. Steps that a replay buffer
    stored and pays for again are in the memory by then.

    Observations are read as they are: parts of a box with a large range decide what is near.

    Source: Seo et al., "State entropy maximization with random encoders for efficient exploration", ICML 2021,
    section 4.
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        k: int = 3,
        memory: int = 4096,
        features: int = 64,
        embed: Embed | None = None,
        seed: int = 0,
    ):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            k: which neighbour.
            memory: how many observations are remembered, the last ones.
            features: the number of features, and the width of the hidden layer.
            embed: what texts are to the network; see ``LearnedCuriosity``.
            seed: of the network's weights.

        Raises:
            InputError: a number is not positive, or the memory cannot hold k.
        """
        super().__init__(weight, seed)
        require_positive(k=k, features=features)
        if memory < k:
            raise InputError(f"memory={memory} must hold at least k={k} observations")
        self.k, self.memory, self.features, self.embed = k, memory, features, embed

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds the network for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.read = reader(observation_space, self.embed)
        with seeded(self.seed):
            self.network = encoder(self.read, self.features, self.features).requires_grad_(False)
        self.known = torch.zeros(self.memory, self.features)
        self.count = 0  # of observations so far, forgotten ones too

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The logarithm of the distance, ``float64[B]``."""
        if self.count < self.k:
            return np.zeros(len(transitions))
        known = self.known[: self.count]
        features = self.encoded(transitions.next_observations)
        # Products find the nearest fast; differences measure the k-th of them, which is exactly 0 where it is the same.
        nearest = torch.cdist(features, known).topk(self.k, largest=False).indices
        distances = (known[nearest] - features[:, None]).norm(dim=2).amax(dim=1)
        return distances.double().log1p().numpy()

    def observe(self, transitions: Transitions) -> None:
        """Remembers."""
        features = self.encoded(transitions.next_observations)[-self.memory :]
        places = (self.count + torch.arange(len(features))) % self.memory
        self.known[places] = features
        self.count += len(features)

    def encoded(self, observations: np.ndarray) -> Tensor:
        """The features y, ``float32[B, features]``."""
        return self.network(torch.as_tensor(self.read.numbers(observations)))
