"""What a curiosity module is: what it answers, how it is saved, and how its weight changes."""

import copy
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import nn

from astray.agents.reading import ActionReader, ObservationReader
from astray.agents.transitions import Transitions
from astray.envs import InputError


@dataclass(frozen=True)
class Annealed:
    """A weight that goes from one value to another, in a straight line over the first steps, and stays there.

    Attributes:
        start: the weight at first.
        end: the weight from then on.
        steps: environment steps, of all environments together.
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        """The weight after so many environment steps."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


Weight = float | Annealed


class Curiosity(ABC):
    """An intrinsic reward. Subclasses say what the bonus is; most remember something in ``observe``.

    ``with_rewards`` calls ``setup`` once, then for every step of its environments ``bonus`` and ``observe``, and now
    and then ``update`` with the steps since the last. All that a module learns or remembers lies in its attributes;
    those that are numbers, arrays, lists, dicts, sets or deques of them, networks, optimisers, statistics or generators
    are saved and restored without further code.

    Attributes:
        weight: what the bonus is multiplied by.
        seed: of all chance in the module, which leaves global random states alone.
        episodic: whether the bonus depends on what the module remembers of an episode, so that it cannot be computed
            again later for steps that were stored.
        fades: whether the bonus for doing the same again and again becomes smaller.
    """

    episodic: ClassVar[bool] = False
    fades: ClassVar[bool] = True

    def __init__(self, weight: Weight = 1.0, seed: int = 0):
        self.weight, self.seed = weight, seed

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares for environments; called once.

        Raises:
            InputError: the module cannot read such observations or actions, or is already in use.
        """
        if hasattr(self, "read"):
            raise InputError(
                f"this {type(self).__name__} already belongs to environments: make another one for these (and for an "
                "evaluation none, which is without bonus)"
            )
        self.read, self.act, self.num_envs = ObservationReader(observation_space), ActionReader(action_space), num_envs

    @abstractmethod
    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The bonus before its weight, ``float64[B]``. Changes nothing."""

    def observe(self, transitions: Transitions) -> None:  # noqa: B027 (nothing to remember is a fine answer)
        """Remembers what happened: counts, normalisers, the memory of an episode."""

    def update(self, transitions: Transitions) -> dict[str, float]:
        """Learns from the steps since the last update, in the order in which they came; returns what to log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the module learned and remembers, as a copy."""
        saved = {name: _saved(value) for name, value in vars(self).items() if name != "weight"}
        return {name: state for name, state in saved.items() if state is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state_dict``. The module was set up for the same spaces."""
        for name, saved in state.items():
            setattr(self, name, _restored(getattr(self, name), copy.deepcopy(saved)))


def _saved(value: Any) -> Any:
    """A copy of what a value holds, or None for settings."""
    match value:
        case nn.Module() | torch.optim.Optimizer():
            return copy.deepcopy(value.state_dict())  # torch hands out the live tensors
        case RunningMeanStd():
            return {"mean": np.array(value.mean), "var": np.array(value.var), "count": float(value.count)}
        case np.random.Generator():
            return copy.deepcopy(value.bit_generator.state)
        case _ if hasattr(value, "load_state_dict"):
            return value.state_dict()
        case set() | deque():
            return copy.deepcopy(list(value))
        case bool() | int() | float() | np.ndarray() | np.generic() | torch.Tensor() | dict() | list() | tuple():
            return copy.deepcopy(value)
    return None


def _restored(value: Any, saved: Any) -> Any:
    """What ``_saved`` copied, in the place of the value that is there."""
    match value:
        case RunningMeanStd():
            value.mean, value.var, value.count = saved["mean"], saved["var"], saved["count"]
        case np.random.Generator():
            value.bit_generator.state = saved
        case _ if hasattr(value, "load_state_dict"):
            value.load_state_dict(saved)
        case dict() | set():  # in place: a Counter stays one
            value.clear()
            value.update(saved)
        case deque():
            value.clear()
            value.extend(saved)
        case _:
            return saved
    return value
