"""Never give up: novelty in the episode, times novelty in life."""

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn

from astray.agents.pseudo_counts import PseudoCounts
from astray.agents.rnd import Distillation
from astray.agents.transitions import Transitions

LARGEST_FACTOR = 5.0
"""The paper's L."""


class NGU(PseudoCounts):
    """The bonus of ``PseudoCounts``, times up to 5 where the next observation is new in life.

    bonus = bonus_episode * min(max(alpha, 1), L) with alpha = 1 + (error - mean) / spread, where the error is that of
    ``RND`` on s', and mean and spread are those of all errors so far. Arguments are those of ``PseudoCounts``. The
    paper's family of policies with other weights and discounts is not part of it.

    Source: Badia et al., "Never give up: Learning directed exploration strategies", ICLR 2020, equation 1.
    """

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.errors = RunningMeanStd(shape=())

    def build(self) -> nn.ModuleDict:
        """The inverse model, and both networks of random network distillation."""
        networks = super().build()
        networks["distillation"] = Distillation(self.read, self.features)
        return networks

    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """How badly actions and the random network are predicted."""
        return super().loss(transitions) | {"distillation": self._errors(transitions).mean()}

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The product, ``float64[B]``."""
        with torch.no_grad():
            errors = self._errors(transitions).double().numpy()
        alpha = 1 + (errors - self.errors.mean) / np.sqrt(self.errors.var + 1e-8)
        return super().bonus(transitions) * alpha.clip(1, LARGEST_FACTOR)

    def observe(self, transitions: Transitions) -> None:
        """Remembers what was come to, and updates the statistics."""
        with torch.no_grad():
            self.errors.update(self._errors(transitions).double().numpy())
        super().observe(transitions)

    def _errors(self, transitions: Transitions) -> Tensor:
        return self.networks["distillation"](self.whitened(transitions.next_observations))
