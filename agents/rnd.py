"""Random network distillation."""

import copy
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import nn

from astray.agents.reward_stack import Transitions

CLIP = 5.0


class RND:
    """The bonus is how badly a trained network predicts a fixed random one on the next observation.

    bonus = mean((predictor(s') - target(s'))^2) / std, where observations are whitened by running statistics and
    clipped to [-5, 5], and std is that of the raw errors so far. The paper divides by the std of discounted
    intrinsic returns and uses a second value head; here the bonus joins the extrinsic reward in one stream.

    Source: Burda et al., "Exploration by random network distillation", ICLR 2019, sections 2.2 and 2.4.
    """

    def __init__(self, weight: float = 1.0, features: int = 64, learning_rate: float = 1e-3, seed: int = 0):
        """Makes the module; the networks are built when the first transitions show the observation's size.

        Args:
            weight: what the bonus is multiplied by.
            features: width of the hidden layers and of the output.
            learning_rate: of the predictor's Adam.
            seed: of both networks' initial weights (the global random state is left alone).
        """
        self.weight, self.features, self.learning_rate, self.seed = weight, features, learning_rate, seed
        self._target: nn.Module | None = None

    def _build(self, size: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            width = self.features
            self._target = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width))
            self._predictor = nn.Sequential(
                nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
            )
        self._target.requires_grad_(False)
        self._optimizer = torch.optim.Adam(self._predictor.parameters(), lr=self.learning_rate)
        self._observations = RunningMeanStd(shape=(size,))
        self._errors = RunningMeanStd(shape=())

    def _error(self, observations: np.ndarray) -> torch.Tensor:
        rows = observations.reshape(len(observations), -1).astype(np.float64)
        if self._target is None:
            self._build(rows.shape[1])
        assert self._target is not None
        white = (rows - self._observations.mean) / np.sqrt(self._observations.var + 1e-8)
        inputs = torch.as_tensor(white.clip(-CLIP, CLIP), dtype=torch.float32)
        return (self._predictor(inputs) - self._target(inputs)).square().mean(dim=1)

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The prediction error on the next observations, ``float64[B]``."""
        with torch.no_grad():
            error = self._error(transitions.next_observations).double().numpy()
        return error / np.sqrt(self._errors.var + 1e-8)

    def observe(self, transitions: Transitions) -> None:
        """Updates the statistics of observations and errors."""
        with torch.no_grad():
            error = self._error(transitions.next_observations).double().numpy()
        self._errors.update(error)
        rows = transitions.next_observations.reshape(len(error), -1)
        self._observations.update(rows.astype(np.float64))

    def update(self, transitions: list[Transitions]) -> dict[str, float]:
        """One pass over the steps, in the order in which they came."""
        losses = []
        for step in transitions:
            loss = self._error(step.next_observations).mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            losses.append(loss.item())
        return {"loss": float(np.mean(losses))}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser and statistics; empty before the first transitions."""
        if self._target is None:
            return {}
        statistics = {
            name: [s.mean, s.var, s.count]
            for name, s in (("observations", self._observations), ("errors", self._errors))
        }
        state = {
            "target": self._target.state_dict(),
            "predictor": self._predictor.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "statistics": statistics,
        }
        return copy.deepcopy(state)  # torch hands out the live tensors, and the next update would change them

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state_dict``."""
        if not state:
            self._target = None
            return
        self._build(len(state["statistics"]["observations"][0]))
        assert self._target is not None
        self._target.load_state_dict(state["target"])
        self._predictor.load_state_dict(state["predictor"])
        self._optimizer.load_state_dict(state["optimizer"])
        for name, statistics in (("observations", self._observations), ("errors", self._errors)):
            statistics.mean, statistics.var, statistics.count = state["statistics"][name]
