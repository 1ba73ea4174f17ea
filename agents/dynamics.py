"""Features of observations that are learned by predicting what was done, and what comes of it."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from astray.agents.networks import BATCH, LearnedCuriosity, encoder, mlp
from astray.agents.transitions import Transitions


class InverseFeatures(LearnedCuriosity):
    """A module with features phi(s) from which, before and after a step, a network tells the action.

    They keep of an observation what actions change, and no noise that they do not.

    Source: Pathak et al., "Curiosity-driven exploration by self-supervised prediction", ICML 2017, section 2.2,
    equations 2 and 3.
    """

    def build(self) -> nn.ModuleDict:
        """The encoder phi, and the network that tells the action."""
        return nn.ModuleDict(
            {
                "encoder": encoder(self.read, self.features, self.features),
                "inverse_model": mlp(2 * self.features, self.features, self.act.size),
            }
        )

    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """How badly actions are told: cross-entropy where they are discrete, else the mean squared error."""
        return {"inverse": self._inverse_loss(*self._both(transitions), transitions.actions)}

    def update(self, transitions: Transitions) -> dict[str, float]:
        """One pass over the steps; also tells the mean spread of a feature, which is 0 if all have collapsed."""
        told = super().update(transitions)
        spread = self.encoded(transitions.next_observations[:BATCH]).std(dim=0, correction=0).mean()
        return told | {"feature_spread": spread.item()}

    def encoded(self, observations: np.ndarray) -> Tensor:
        """phi, without gradients, ``float32[B, features]``; of no observations too."""
        if not len(observations):
            return torch.zeros(0, self.features)
        with torch.no_grad():
            return self.networks["encoder"](self.whitened(observations))

    def _both(self, transitions: Transitions) -> tuple[Tensor, Tensor]:
        """phi(s) and phi(s'), to learn from."""
        whole = np.concatenate([transitions.observations, transitions.next_observations])
        before, after = self.networks["encoder"](self.whitened(whole)).chunk(2)
        return before, after

    def _inverse_loss(self, before: Tensor, after: Tensor, actions: np.ndarray) -> Tensor:
        return self.act.loss(self.networks["inverse_model"](torch.cat([before, after], dim=1)), actions).mean()


class DynamicsFeatures(InverseFeatures):
    """A module whose features are learned together with a forward model f, which predicts phi(s') from phi(s) and a.

    The loss is (1 - beta) L_inverse + beta L_forward with beta = 0.2 and L_forward = ||f(phi(s), a) - phi(s')||^2 / 2.

    Unlike in the paper's code, phi(s') is no variable of L_forward: a forward model is best at features that are all
    the same, so a gradient through what it should predict draws them together. Burda et al., "Large-scale study of
    curiosity-driven learning", ICLR 2019, stop that gradient for this reason.

    Source: Pathak et al., ICML 2017, section 2.2, equations 4, 5 and 7.
    """

    loss_weights: ClassVar[Mapping[str, float]] = {"inverse": 0.8, "forward": 0.2}

    def build(self) -> nn.ModuleDict:
        """The encoder and both models."""
        networks = super().build()
        networks["forward_model"] = mlp(self.features + self.act.size, self.features, self.features)
        return networks

    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """How badly actions and features are predicted."""
        before, after = self._both(transitions)
        return {
            "inverse": self._inverse_loss(before, after, transitions.actions),
            "forward": self.errors(before, after.detach(), transitions).mean(),
        }

    def errors(self, before: Tensor, after: Tensor, transitions: Transitions) -> Tensor:
        """||f(phi(s), a) - phi(s')||^2 / 2, ``float32[B]``."""
        predicted = self.networks["forward_model"](torch.cat([before, self.acted(transitions)], dim=1))
        return functional.mse_loss(predicted, after, reduction="none").sum(dim=1) / 2
