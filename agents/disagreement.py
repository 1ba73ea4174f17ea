"""Curiosity about what several models disagree on."""

import torch
from torch import Tensor, nn

from astray.agents.curiosity import Weight
from astray.agents.embedding import Embed
from astray.agents.networks import Ensemble, ScaledCuriosity, encoder
from astray.agents.transitions import Transitions
from astray.envs import InputError


class Disagreement(ScaledCuriosity):
    """The bonus is how much the forward models of an ensemble disagree about the next observation.

    bonus = mean_i(Var_k(f_k(phi(s), a)_i)) / spread, the variance over models k and its mean over features i. The
    features phi are those of a fixed random network. All models learn phi(s') from every minibatch, and differ by their
    first weights. Where what comes next is chance, all learn the same mean, and the bonus goes away. As in the authors'
    code, the bonus is divided by the spread of its discounted sums so far.

    Source: Pathak et al., "Self-supervised exploration via disagreement", ICML 2019, equation 1.
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        models: int = 5,
        learning_rate: float = 1e-3,
        features: int = 64,
        embed: Embed | None = None,
        seed: int = 0,
    ):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            models: in the ensemble, at least 2.
            learning_rate: of Adam.
            features: the number of features, and the width of hidden layers.
            embed: what texts are to the networks; see ``LearnedCuriosity``.
            seed: of initial weights and minibatches.

        Raises:
            InputError: a number is out of its range.
        """
        super().__init__(weight, learning_rate, features, embed, seed)
        if models < 2:
            raise InputError(f"models={models} must be at least 2, or there is nobody to disagree with")
        self.models = models

    def build(self) -> nn.ModuleDict:
        """The fixed features and the ensemble."""
        size = self.features
        return nn.ModuleDict(
            {
                "encoder": encoder(self.read, size, size).requires_grad_(False),
                "models": Ensemble(self.models, size + self.act.size, size, size),
            }
        )

    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """The mean squared error of each model, and their sum."""
        target = self.networks["encoder"](self.whitened(transitions.next_observations))
        return {"loss": (self._predicted(transitions) - target).square().mean(dim=(1, 2)).sum()}

    def raw(self, transitions: Transitions) -> Tensor:
        """The mean variance, ``float32[B]``."""
        predicted = self._predicted(transitions)
        return (predicted - predicted.mean(dim=0)).square().mean(dim=(0, 2))

    def _predicted(self, transitions: Transitions) -> Tensor:
        """What each model expects, ``float32[models, B, features]``."""
        before = self.networks["encoder"](self.whitened(transitions.observations))
        return self.networks["models"](torch.cat([before, self.acted(transitions)], dim=1))
