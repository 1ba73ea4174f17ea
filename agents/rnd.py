"""Random network distillation."""

import numpy as np
from torch import Tensor, nn

from astray.agents.networks import ScaledCuriosity, encoder
from astray.agents.reading import ObservationReader
from astray.agents.transitions import Transitions


class Distillation(nn.Module):
    """A fixed random network, and a deeper one that learns to predict it."""

    def __init__(self, read: ObservationReader, features: int):
        super().__init__()
        self.target = encoder(read, features, features).requires_grad_(False)
        self.predictor = encoder(read, features, features, layers=2)

    def forward(self, observations: Tensor) -> Tensor:
        """How badly the prediction is, the mean square over features, ``float32[B]``."""
        return (self.predictor(observations) - self.target(observations)).square().mean(dim=1)


class RND(ScaledCuriosity):
    """The bonus is how badly a trained network predicts a fixed random one on the next observation.

    bonus = mean((predictor(s') - target(s'))^2) / spread, where observations are whitened by running statistics and
    clipped to [-5, 5], and spread is that of the discounted sums of errors so far. The paper's second value head is
    ``CuriousPPO``; without it the bonus joins the extrinsic reward in one stream. The paper's statistics begin with
    steps of a random agent, ours at the first update; until then observations are clipped as they are.

    Source: Burda et al., "Exploration by random network distillation", ICLR 2019, sections 2.2 and 2.4.
    """

    def build(self) -> nn.ModuleDict:
        """Both networks."""
        return nn.ModuleDict({"distillation": Distillation(self.read, self.features)})

    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """The mean error."""
        return {"loss": self.raw(transitions).mean()}

    def raw(self, transitions: Transitions) -> Tensor:
        """The error on the next observations, ``float32[B]``."""
        return self.errors(transitions.next_observations)

    def errors(self, observations: np.ndarray) -> Tensor:
        """The error on any observations, ``float32[B]``."""
        return self.networks["distillation"](self.whitened(observations))
