"""Exploration via elliptical episodic bonuses."""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from astray.agents.curiosity import Weight
from astray.agents.dynamics import InverseFeatures
from astray.agents.embedding import Embed
from astray.agents.networks import ScaledCuriosity, require_positive, where_begun
from astray.agents.transitions import Transitions


class Directions(NamedTuple):
    """What the episode in each of B environments knows.

    Attributes:
        starts: features of where episodes begin whose first step this is, ``float64[episodes, features]``.
        turned: C^-1 phi, by the C before the step, ``float64[B, features]``.
        bonuses: phi^T C^-1 phi, ``float64[B]``.
    """

    starts: Tensor
    turned: Tensor
    bonuses: Tensor


class E3B(ScaledCuriosity, InverseFeatures):
    """The bonus is how far the next observation's features lie from all directions that the episode went.

    bonus = phi(s')^T C^-1 phi(s') / spread, where C = ridge I + the sum of phi phi^T over the observations of the
    episode before s', its start included. Features phi are of an inverse model, and enter C as they are when they are
    seen. As in the authors' code with the paper's settings, the bonus is divided by the spread of bonuses so far.

    Source: Henaff et al., "Exploration via elliptical episodic bonuses", NeurIPS 2022, algorithm 1.
    """

    episodic = True
    discount = 0.0

    def __init__(
        self,
        weight: Weight = 1.0,
        ridge: float = 0.1,
        learning_rate: float = 1e-3,
        features: int = 64,
        embed: Embed | None = None,
        seed: int = 0,
    ):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            ridge: what C begins with.
            learning_rate: of Adam.
            features: the number of features, and the width of hidden layers.
            embed: what texts are to the networks; see ``LearnedCuriosity``.
            seed: of initial weights and minibatches.

        Raises:
            InputError: a number is not positive.
        """
        super().__init__(weight, learning_rate, features, embed, seed)
        require_positive(ridge=ridge)
        self.ridge = ridge

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        identity = torch.eye(self.features, dtype=torch.float64)
        self.inverses = (identity / self.ridge).repeat(num_envs, 1, 1)

    def raw(self, transitions: Transitions) -> Tensor:
        """phi^T C^-1 phi, ``float64[B]``."""
        return self._directions(transitions).bonuses

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The scaled bonus, ``float64[B]``."""
        return self.answered(transitions, self._directions).bonuses.numpy() / self.scale.spread

    def observe(self, transitions: Transitions) -> None:
        """Updates C and the statistics."""
        rows, new = where_begun(transitions)
        starts, turned, bonuses = self.recalled(transitions, self._directions)
        self.scale.observe(transitions.environments, bonuses.numpy())
        # (C + phi phi^T)^-1 = C^-1 - C^-1 phi phi^T C^-1 / (1 + phi^T C^-1 phi), by Sherman and Morrison, 1950
        if len(starts):
            self.inverses[rows[new]] = torch.eye(self.features, dtype=torch.float64) / self.ridge
            squared = starts.square().sum(dim=1, keepdim=True)
            self._subtract(rows[new], starts / (self.ridge * (self.ridge + squared)).sqrt())
        self._subtract(rows, turned / (1 + bonuses[:, None]).sqrt())

    def _subtract(self, rows: Tensor, vectors: Tensor) -> None:
        """Subtracts v v^T from the inverses of some environments, in place: no matrix is copied."""
        every = torch.zeros(self.num_envs, self.features, dtype=torch.float64)
        every[rows] = vectors
        self.inverses.addcmul_(every[:, :, None], every[:, None], value=-1)

    def _directions(self, transitions: Transitions) -> "Directions":
        rows, new = where_begun(transitions)
        features = self._features(transitions.next_observations)
        starts = self._features(transitions.observations[new.numpy()])
        every = torch.zeros(self.num_envs, 1, self.features, dtype=torch.float64)
        every[rows, 0] = features
        turned = (every @ self.inverses)[rows, 0]  # C is symmetric, and a row is faster than a column
        share = (starts * features[new]).sum(dim=1) / (self.ridge + starts.square().sum(dim=1))
        turned[new] = (features[new] - share[:, None] * starts) / self.ridge
        return Directions(starts, turned, (features * turned).sum(dim=1))

    def _features(self, observations: np.ndarray) -> Tensor:
        return self.encoded(observations).double()
