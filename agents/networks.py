"""What learned curiosity modules are made of: networks, whitened observations, a scale for bonuses, minibatches."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn

from astray.agents.curiosity import Curiosity, Weight
from astray.agents.embedding import Embed, reader
from astray.agents.reading import ObservationReader
from astray.agents.transitions import Transitions
from astray.envs import InputError

T = TypeVar("T")
CLIP = 5.0
BATCH = 256


def require_positive(**numbers: float) -> None:
    """Raises ``InputError`` for the first argument that is not above 0."""
    for name, number in numbers.items():
        if not number > 0:
            raise InputError(f"{name}={number} must be positive")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lets torch draw initial weights from a seed, and leaves its global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every accelerator too
        yield


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """A network of linear maps with ReLU between, and no activation at its end."""
    parts: list[nn.Module] = []
    for before, after in pairwise([inputs, *[hidden] * layers, outputs]):
        parts += [_orthogonal(nn.Linear(before, after)), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Ensemble(nn.Module):
    """Several networks like ``mlp`` with one hidden layer, computed together."""

    def __init__(self, models: int, inputs: int, hidden: int, outputs: int):
        super().__init__()
        layers = [[part for part in mlp(inputs, hidden, outputs) if isinstance(part, nn.Linear)] for _ in range(models)]
        each = list(zip(*layers, strict=True))
        self.weights = nn.ParameterList(torch.stack([layer.weight.detach().T for layer in layers]) for layers in each)
        self.biases = nn.ParameterList(torch.zeros(models, 1, size) for size in (hidden, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """What each network makes of the inputs ``[B, inputs]``: ``[models, B, outputs]``."""
        hidden = torch.baddbmm(self.biases[0], inputs.expand(len(self.weights[0]), -1, -1), self.weights[0]).relu()
        return torch.baddbmm(self.biases[1], hidden, self.weights[1])


def encoder(read: ObservationReader, hidden: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """A network from an observation's numbers to features: with convolutions (Mnih et al. 2015) for images."""
    if read.image is None:
        return mlp(read.size, hidden, outputs, layers)
    height, width, channels = read.image
    maps = nn.Sequential(
        nn.Unflatten(1, (height, width, channels)),
        _ChannelsFirst(),
        *(_orthogonal(nn.Conv2d(channels, 32, 8, 4)), nn.ReLU()),
        *(_orthogonal(nn.Conv2d(32, 64, 4, 2)), nn.ReLU()),
        *(_orthogonal(nn.Conv2d(64, 64, 3)), nn.ReLU(), nn.Flatten()),
    )
    with torch.no_grad():
        size = maps(torch.zeros(1, read.size)).shape[1]
    return nn.Sequential(maps, mlp(size, hidden, outputs, layers))


def _orthogonal(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """The layer with orthogonal weights, which keep the spread of inputs through ReLU, and no bias."""
    nn.init.orthogonal_(layer.weight, 2**0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class _ChannelsFirst(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Answer:
    """What ``bonus`` found out about steps, so that ``observe`` need not do it again. It is no state, and not saved."""

    about: Transitions
    found: Any


class LearnedCuriosity(Curiosity):
    """A module with networks that learn from minibatches. Subclasses give ``build``, ``loss`` and ``bonus``.

    All of its networks are float32 on the CPU. They get observations whitened: with the running mean subtracted,
    divided by the running spread, and clipped to [-5, 5], so that boxes of any range can be learned from. The
    statistics, like the networks, change in ``update`` alone: within an episode, what is the same has to look the same.

    Attributes:
        loss_weights: what the parts of the loss are multiplied by in their sum; 1 where nothing is said.
    """

    loss_weights: ClassVar[Mapping[str, float]] = {}

    def __init__(
        self,
        weight: Weight = 1.0,
        learning_rate: float = 1e-3,
        features: int = 64,
        embed: Embed | None = None,
        seed: int = 0,
    ):
        """Makes the module; networks are built when environments are known.

        Args:
            weight: what the bonus is multiplied by.
            learning_rate: of Adam.
            features: the number of features, and the width of hidden layers.
            embed: what texts are to the networks, from B texts to ``[B, size]``, such as a language model's ``embed``;
                by default their words and pairs of words. Each distinct text is embedded once.
            seed: of initial weights and minibatches.

        Raises:
            InputError: a number is not positive.
        """
        super().__init__(weight, seed)
        require_positive(learning_rate=learning_rate, features=features)
        self.learning_rate, self.features, self.embed = learning_rate, features, embed
        self._answer: Answer | None = None

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.read = reader(observation_space, self.embed)
        self.seen = RunningMeanStd(shape=(self.read.size,))
        self.rng = np.random.default_rng(self.seed)
        with seeded(self.seed):
            self.networks = self.build()
        learned = [weight for weight in self.networks.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(learned, lr=self.learning_rate, fused=True)

    @abstractmethod
    def build(self) -> nn.ModuleDict:
        """The networks, learned and fixed ones (those need no gradient)."""

    @abstractmethod
    def loss(self, transitions: Transitions) -> dict[str, Tensor]:
        """The parts of the loss by name, each a number; their sum by ``loss_weights`` is made small."""

    def update(self, transitions: Transitions) -> dict[str, float]:
        """Counts the observations in, and passes over the steps once, in minibatches of ``BATCH`` in random order.

        Returns:
            The mean parts of the loss.
        """
        self._answer = None
        self.seen.update(self.read.numbers(transitions.next_observations).astype(np.float64))
        order = self.rng.permutation(len(transitions))
        told: dict[str, list[float]] = {}
        for start in range(0, len(order), BATCH):
            parts = self.loss(transitions[order[start : start + BATCH]])
            self.optimizer.zero_grad()
            torch.stack([self.loss_weights.get(name, 1.0) * part for name, part in parts.items()]).sum().backward()
            self.optimizer.step()
            for name, part in parts.items():
                told.setdefault(name, []).append(part.item())
        return {name: float(np.mean(values)) for name, values in told.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state_dict``. The module was set up for the same spaces."""
        self._answer = None
        super().load_state_dict(state)

    def answered(self, transitions: Transitions, find: Callable[[Transitions], T]) -> T:
        """Finds something out about steps, for ``observe`` to use."""
        found = find(transitions)
        self._answer = Answer(transitions, found)
        return found

    def recalled(self, transitions: Transitions, find: Callable[[Transitions], T]) -> T:
        """What was found out about these very steps just before, or else is now."""
        answer, self._answer = self._answer, None
        return answer.found if answer is not None and answer.about is transitions else find(transitions)

    def whitened(self, observations: np.ndarray) -> Tensor:
        """Observations as networks get them, ``float32[B, size]``."""
        numbers = self.read.numbers(observations)
        white = (numbers - self.seen.mean) / np.sqrt(self.seen.var + 1e-8)
        return torch.as_tensor(white.clip(-CLIP, CLIP), dtype=torch.float32)

    def acted(self, transitions: Transitions) -> Tensor:
        """Actions as networks get them, ``float32[B, size]``."""
        return torch.as_tensor(self.act.numbers(transitions.actions))


def where_begun(transitions: Transitions) -> tuple[Tensor, Tensor]:
    """The environments of steps, ``int64[B]``, and which of the steps begin an episode, ``bool[B]``."""
    return torch.as_tensor(transitions.environments), torch.as_tensor(transitions.steps == 0)


class ReturnScale:
    """The running spread of discounted sums of bonuses, by which a bonus is divided.

    Sums run along time in each environment and over the ends of episodes, and a bonus enters a sum when it was paid.
    The statistics begin with one sum of spread 1 around 0, so that the first bonuses of a single environment, which
    differ little, are not divided by nearly nothing.

    Source: Burda et al., "Exploration by random network distillation", ICLR 2019, section 2.4.
    """

    def __init__(self, num_envs: int, discount: float):
        self.discount = discount
        self.sums = np.zeros(num_envs)
        self.statistics = RunningMeanStd(epsilon=1.0, shape=())

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


class ScaledCuriosity(LearnedCuriosity):
    """A learned module whose bonus is divided by the running spread of discounted sums of bonuses so far.

    Its size is then the same for networks and observations of any size. Subclasses give ``build``, ``loss`` and
    ``raw``.

    Attributes:
        discount: of the sums.
    """

    discount: ClassVar[float] = 0.99

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.scale = ReturnScale(num_envs, self.discount)

    @abstractmethod
    def raw(self, transitions: Transitions) -> Tensor:
        """The bonus before it is divided, ``float[B]``."""

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The scaled bonus, ``float64[B]``."""
        return self.answered(transitions, self._raw) / self.scale.spread

    def observe(self, transitions: Transitions) -> None:
        """Updates the statistics of bonuses."""
        self.scale.observe(transitions.environments, self.recalled(transitions, self._raw))

    def _raw(self, transitions: Transitions) -> np.ndarray:
        with torch.no_grad():
            return self.raw(transitions).double().numpy()
