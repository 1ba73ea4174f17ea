"""What learned curiosity modules are made of: networks, whitened observations, a scale for bonuses, minibatches."""

from abc import abstractmethod
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn

from astray.agents.curiosity import Curiosity, Weight
from astray.agents.reading import ObservationReader
from astray.agents.transitions import Transitions

CLIP = 5.0
BATCH = 256


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """A network of linear maps with ReLU between, orthogonal weights, and no activation at its end."""
    widths = [inputs, *[hidden] * layers, outputs]
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.orthogonal_(linear.weight, 2**0.5)
        nn.init.zeros_(linear.bias)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def encoder(read: ObservationReader, hidden: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """A network from an observation's numbers to features: with convolutions (Mnih et al. 2015) for images."""
    if read.image is None:
        return mlp(read.size, hidden, outputs, layers)
    height, width, channels = read.image
    maps = nn.Sequential(
        nn.Unflatten(1, (height, width, channels)),
        _ChannelsFirst(),
        *(nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
    )
    with torch.no_grad():
        size = maps(torch.zeros(1, read.size)).shape[1]
    return nn.Sequential(maps, mlp(size, hidden, outputs, layers))


class _ChannelsFirst(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2)


class LearnedCuriosity(Curiosity):
    """A module with networks that learn from minibatches. Subclasses give ``build``, ``loss`` and ``bonus``.

    All of its networks are float32 on the CPU. Where ``whitened`` is used, observations have the running mean
    subtracted, are divided by the running spread, and clipped to [-5, 5].
    """

    def __init__(self, weight: Weight = 1.0, learning_rate: float = 1e-3, features: int = 64, seed: int = 0):
        """Makes the module; networks are built when environments are known.

        Args:
            weight: what the bonus is multiplied by.
            learning_rate: of Adam.
            features: the number of features, and the width of hidden layers.
            seed: of initial weights and minibatches.
        """
        super().__init__(weight, seed)
        self.learning_rate, self.features = learning_rate, features

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.seen = RunningMeanStd(shape=(self.read.size,))
        self.rng = np.random.default_rng(self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.networks = self.build()
        learned = [weight for weight in self.networks.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(learned, lr=self.learning_rate)

    @abstractmethod
    def build(self) -> nn.ModuleDict:
        """The networks, learned and fixed ones (those need no gradient)."""

    @abstractmethod
    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """The parts of the loss by name, each a number; their sum is made small."""

    def observe(self, transitions: Transitions) -> None:
        """Updates the running statistics of observations."""
        self.seen.update(self.read.numbers(transitions.next_observations).astype(np.float64))

    def update(self, transitions: Transitions) -> dict[str, float]:
        """One pass over the steps in minibatches of ``BATCH``, in random order."""
        order = self.rng.permutation(len(transitions))
        told: dict[str, list[float]] = {}
        for start in range(0, len(order), BATCH):
            parts = self.loss(transitions[order[start : start + BATCH]])
            self.optimizer.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            self.optimizer.step()
            for name, part in parts.items():
                told.setdefault(name, []).append(part.item())
        return {name: float(np.mean(values)) for name, values in told.items()}

    def whitened(self, observations: np.ndarray) -> Tensor:
        """Observations as networks get them, ``float32[B, size]``."""
        numbers = self.read.numbers(observations)
        white = (numbers - self.seen.mean) / np.sqrt(self.seen.var + 1e-8)
        return torch.as_tensor(white.clip(-CLIP, CLIP), dtype=torch.float32)

    def numbers(self, observations: np.ndarray) -> Tensor:
        """Observations as they are, ``float32[B, size]``."""
        return torch.as_tensor(self.read.numbers(observations))


class ReturnScale:
    """The running spread of discounted sums of bonuses, by which a bonus is divided.

    Sums run along time in each environment and over the ends of episodes, and a bonus enters a sum when it was paid.

    Source: Burda et al., "Exploration by random network distillation", ICLR 2019, section 2.4.
    """

    def __init__(self, num_envs: int, discount: float):
        self.discount = discount
        self.sums = np.zeros(num_envs)
        self.statistics = RunningMeanStd(shape=())

    @property
    def spread(self) -> float:
        """What to divide by."""
        return float(np.sqrt(self.statistics.var + 1e-8))

    def observe(self, environments: np.ndarray, bonuses: np.ndarray) -> None:
        """Adds a step of some environments."""
        self.sums[environments] = self.sums[environments] * self.discount + bonuses
        self.statistics.update(self.sums[environments])

    def state_dict(self) -> dict[str, Any]:
        """Sums and statistics."""
        statistics = self.statistics
        return {"sums": self.sums.copy(), "statistics": [statistics.mean, statistics.var, statistics.count]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state_dict``."""
        self.sums = state["sums"].copy()
        self.statistics.mean, self.statistics.var, self.statistics.count = state["statistics"]
