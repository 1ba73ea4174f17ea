"""A reward learned from comparisons of what was done."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from astray.agents.networks import mlp, require_positive, seeded
from astray.agents.reading import ActionReader, ObservationReader
from astray.agents.transitions import Transitions
from astray.envs import InputError

CLIP = 5.0
BATCH = 32
"""Comparisons in a step of the optimiser."""
MISTAKES = 0.1
"""How often whoever compares is taken to answer by chance, as in the paper."""


class PreferenceReward:
    """A reward under which what was preferred earned more.

    p(first preferred) = (1 - m) sigmoid(sum of r over the first - sum of r over the second) + m / 2, with m = 0.1, and
    the cross-entropy to what was said is made small. r is that of an ensemble: each member sees comparisons drawn with
    replacement, is normalised to mean 0 and spread 1 over all steps compared, and their mean is brought to spread 1
    again. ``with_rewards(envs, reward)`` trains on it. Every ``fit`` begins from new weights, so that the reward is a
    function of the comparisons and the seed. The paper regularises until an error on held-out comparisons is as it
    should be; here the number of passes is given.

    Source: Christiano et al., "Deep reinforcement learning from human preferences", NeurIPS 2017, section 2.2.3 and
    equation 1.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        members: int = 3,
        hidden: int = 64,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ):
        """Makes the reward, which has to learn before it pays.

        Args:
            observation_space: of the environments.
            action_space: of the environments.
            members: of the ensemble; with one, nothing is known of ``disagreement``.
            hidden: the width of the two hidden layers.
            learning_rate: of Adam.
            seed: of initial weights, of which comparisons a member sees, and of minibatches.

        Raises:
            InputError: a number is not positive.
        """
        require_positive(members=members, hidden=hidden, learning_rate=learning_rate)
        self.read, self.act = ObservationReader(observation_space), ActionReader(action_space)
        self.members, self.hidden, self.learning_rate, self.seed = members, hidden, learning_rate, seed
        self._ensemble = self._new()
        self.fitted = False

    def fit(
        self,
        first: Sequence[Transitions],
        second: Sequence[Transitions],
        preferred: Sequence[float] | np.ndarray,
        epochs: int = 50,
    ) -> dict[str, float]:
        """Learns from comparisons, and from nothing before them.

        Args:
            first: a fragment of each comparison, such as ``fragments`` gives.
            second: the other one.
            preferred: 1 where the first was preferred, 0 where the second was, 0.5 where neither.
            epochs: passes over the comparisons.

        Returns:
            loss: the last pass's mean cross-entropy, in nats.
            accuracy: the share of comparisons, of those that preferred one, in which the reward prefers the same.
            disagreement: the mean over all steps.

        Raises:
            InputError: there is no comparison, a fragment is empty, the three differ in length, a preference does not
                lie in 0..1, or ``epochs`` is not positive.
        """
        require_positive(epochs=epochs)
        said = torch.as_tensor(np.asarray(preferred, np.float32))
        if not len(first) or not len(first) == len(second) == len(said):
            raise InputError(
                f"{len(first)} first, {len(second)} second fragments, {len(said)} preferred: must be equal"
            )
        if not ((said >= 0) & (said <= 1)).all():
            raise InputError(f"preferred={preferred} must lie in 0..1: 1 for the first, 0 for the second")
        lengths = [len(fragment) for fragment in (*first, *second)]
        if not all(lengths):
            raise InputError("a fragment has no steps; at least one is needed")
        numbers = self._numbers(Transitions.joined([*first, *second]))
        self._ensemble = self._new()
        self._ensemble.look_at(numbers)
        loss = self._learn(self._ensemble.whitened(numbers).split(lengths), said, epochs)
        self._ensemble.normalise(numbers)
        self.fitted = True
        earned = torch.stack([rewards.sum() for rewards in self._ensemble(numbers).mean(0).split(lengths)])
        more = earned[: len(said)] > earned[len(said) :]
        told = said != 0.5
        return {
            "loss": loss,
            "accuracy": float((more == (said > 0.5))[told].float().mean()) if told.any() else float("nan"),
            "disagreement": float(self._ensemble(numbers).std(0, correction=0).mean()),
        }

    def __call__(self, transitions: Transitions) -> np.ndarray:
        """The reward, ``float64[B]``; mean 0 and spread 1 over the steps compared.

        Raises:
            InputError: it has not learned yet.
        """
        return self._rewards(transitions).mean(0).double().numpy()

    def disagreement(self, transitions: Transitions) -> np.ndarray:
        """The spread of the members' rewards, ``float64[B]``: where it is large, a comparison would tell much.

        Raises:
            InputError: it has not learned yet.
        """
        return self._rewards(transitions).std(0, correction=0).double().numpy()

    def state_dict(self) -> dict[str, Any]:
        """What was learned, as a copy."""
        return {"fitted": self.fitted, "ensemble": copy.deepcopy(dict(self._ensemble.state_dict()))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a ``state_dict``, of a reward that was made alike."""
        self.fitted = state["fitted"]
        self._ensemble.load_state_dict(state["ensemble"])

    def _new(self) -> "_Ensemble":
        size = 2 * self.read.size + self.act.size
        with seeded(self.seed):
            return _Ensemble(self.members, size, self.hidden)

    def _numbers(self, transitions: Transitions) -> Tensor:
        """What networks get, ``float32[B, size]``."""
        before, after = map(self.read.numbers, (transitions.observations, transitions.next_observations))
        return torch.as_tensor(np.concatenate([before, self.act.numbers(transitions.actions), after], axis=1))

    def _rewards(self, transitions: Transitions) -> Tensor:
        if not self.fitted:
            raise InputError("this PreferenceReward has learned nothing yet: call fit(first, second, preferred) before")
        return self._ensemble(self._numbers(transitions))

    def _learn(self, fragments: Sequence[Tensor], said: Tensor, epochs: int) -> float:
        """Trains each member on comparisons drawn with replacement; returns the last pass's mean loss."""
        steps = pad_sequence(list(fragments), batch_first=True)
        there = pad_sequence([torch.ones(len(fragment)) for fragment in fragments], batch_first=True)
        count = len(said)
        rng = np.random.default_rng(self.seed)
        losses = []
        for member in self._ensemble.networks:
            optimizer = torch.optim.Adam(member.parameters(), lr=self.learning_rate)
            drawn = rng.integers(count, size=count)
            for epoch in range(epochs):
                for rows in map(torch.as_tensor, np.array_split(rng.permutation(drawn), -(-count // BATCH))):
                    both = torch.cat([rows, rows + count])
                    earned = (member(steps[both])[..., 0] * there[both]).sum(1)
                    more = torch.sigmoid(earned[: len(rows)] - earned[len(rows) :])
                    loss = nn.functional.binary_cross_entropy((1 - MISTAKES) * more + MISTAKES / 2, said[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if epoch == epochs - 1:
                        losses.append(loss.item())
        return float(np.mean(losses))


class _Ensemble(nn.Module):
    """Networks, and what their inputs and outputs are normalised by."""

    input_mean: Tensor
    input_spread: Tensor
    means: Tensor
    spreads: Tensor

    def __init__(self, members: int, size: int, hidden: int):
        super().__init__()
        self.networks = nn.ModuleList([mlp(size, hidden, 1, layers=2) for _ in range(members)])
        self.register_buffer("input_mean", torch.zeros(size))
        self.register_buffer("input_spread", torch.ones(size))
        self.register_buffer("means", torch.zeros(members, 1))
        self.register_buffer("spreads", torch.ones(members, 1))

    def look_at(self, numbers: Tensor) -> None:
        """Takes mean and spread of inputs."""
        self.input_mean = numbers.mean(0)
        self.input_spread = numbers.std(0, correction=0)

    def whitened(self, numbers: Tensor) -> Tensor:
        """Inputs as networks get them; what never varied counts when it does for the first time, up to the limit."""
        return ((numbers - self.input_mean) / (self.input_spread + 1e-8)).clip(-CLIP, CLIP)

    @torch.no_grad()
    def normalise(self, numbers: Tensor) -> None:
        """Brings each member to mean 0 and spread 1, and then all to a size at which their mean has spread 1."""
        raw = self._raw(numbers)
        self.means = raw.mean(1, keepdim=True)
        self.spreads = raw.std(1, correction=0, keepdim=True) + 1e-8
        self.spreads = self.spreads * (self(numbers).mean(0).std(correction=0) + 1e-8)

    @torch.no_grad()
    def forward(self, numbers: Tensor) -> Tensor:
        """The members' normalised rewards, ``float32[members, B]``."""
        return (self._raw(numbers) - self.means) / self.spreads

    def _raw(self, numbers: Tensor) -> Tensor:
        white = self.whitened(numbers)
        return torch.stack([network(white)[:, 0] for network in self.networks])


def fragments(stored: Sequence[Transitions], length: int) -> list[Transitions]:
    """Cuts what several environments did into fragments of one episode each.

    Args:
        stored: steps in the order in which they came, each of some environments, as a reward function gets them.
        length: steps in a fragment. The last of an episode may be shorter: what happens at ends is often what matters.

    Returns:
        By environment, then by time. Together they hold every step once.

    Raises:
        InputError: there is nothing stored, or ``length`` is not positive.
    """
    if not stored:
        raise InputError("stored=[] holds no steps to cut into fragments")
    require_positive(length=length)
    steps = Transitions.joined(stored)
    steps = steps[np.lexsort((steps.steps, steps.episodes, steps.environments))]
    same = (np.diff(steps.environments) == 0) & (np.diff(steps.episodes) == 0)
    ends = [*(np.flatnonzero(~same) + 1).tolist(), len(steps)]
    starts = [0, *ends[:-1]]
    cuts = [
        (cut, min(cut + length, end))
        for start, end in zip(starts, ends, strict=True)
        for cut in range(start, end, length)
    ]
    return [steps[cut:end] for cut, end in cuts]


def preferences_of_teacher(
    first: Sequence[Transitions], second: Sequence[Transitions], temperature: float = 1.0, seed: int = 0
) -> np.ndarray:
    """What a teacher prefers who knows the world's own reward, ``float64[n]``: 1 for the first, 0 for the second.

    p(first preferred) = sigmoid((the first's sum of rewards - the second's) / temperature), without discount. At
    temperature 0 the larger sum is preferred, and equal ones give 0.5.

    Args:
        first: a fragment of each comparison.
        second: the other one.
        temperature: in units of reward.
        seed: of the draws.

    Raises:
        InputError: the temperature is negative, or there are not as many first as second fragments.
    """
    if temperature < 0:
        raise InputError(f"temperature={temperature} must not be negative")
    if len(first) != len(second):
        raise InputError(f"{len(first)} first and {len(second)} second fragments: each needs another one")
    more = np.array([one.rewards.sum() - other.rewards.sum() for one, other in zip(first, second, strict=True)])
    if temperature == 0:
        return (np.sign(more) + 1) / 2
    probability = (1 + np.tanh(more / temperature / 2)) / 2  # the sigmoid, which does not overflow
    return (np.random.default_rng(seed).random(len(more)) < probability).astype(np.float64)
