"""Random network distillation."""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from astray.agents.networks import LearnedCuriosity, ReturnScale, encoder
from astray.agents.transitions import Transitions


class RND(LearnedCuriosity):
    """The bonus is how badly a trained network predicts a fixed random one on the next observation.

    bonus = mean((predictor(s') - target(s'))^2) / spread, where observations are whitened by running statistics and
    clipped to [-5, 5], and spread is that of the discounted sums of errors so far. The paper's second value head is
    ``CuriousPPO``; without it the bonus joins the extrinsic reward in one stream.

    Source: Burda et al., "Exploration by random network distillation", ICLR 2019, sections 2.2 and 2.4.
    """

    discount = 0.99

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds both networks."""
        super().setup(observation_space, action_space, num_envs)
        self.scale = ReturnScale(num_envs, self.discount)

    def build(self) -> nn.ModuleDict:
        """The fixed network, and a deeper one that learns to predict it."""
        target = encoder(self.read, self.features, self.features).requires_grad_(False)
        return nn.ModuleDict(
            {"target": target, "predictor": encoder(self.read, self.features, self.features, layers=2)}
        )

    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """The mean error."""
        return {"loss": self._errors(transitions).mean()}

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The error on the next observations, ``float64[B]``."""
        return self._raw(transitions) / self.scale.spread

    def observe(self, transitions: Transitions) -> None:
        """Updates the statistics of errors and observations."""
        self.scale.observe(transitions.environments, self._raw(transitions))
        super().observe(transitions)

    def _raw(self, transitions: Transitions) -> np.ndarray:
        with torch.no_grad():
            return self._errors(transitions).double().numpy()

    def _errors(self, transitions: Transitions) -> Tensor:
        white = self.whitened(transitions.next_observations)
        return (self.networks["predictor"](white) - self.networks["target"](white)).square().mean(dim=1)
