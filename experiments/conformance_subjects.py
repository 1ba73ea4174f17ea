"""What the conformance suite tries curiosity modules on: environments of every kind, and steps of random play."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from astray.agents import Curiosity, Transitions, vec_env, with_rewards

ENVS = 4
STEPS = 24
"""Of random play, in which episodes end in every place."""
BETWEEN_UPDATES = 8


class TwoTorques(gym.ActionWrapper):
    """Pendulum with two motors: actions of several numbers, which are not as many as there are rows."""

    def __init__(self):
        super().__init__(gym.make("Pendulum-v1", max_episode_steps=10))
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def action(self, action: np.ndarray) -> np.ndarray:
        """Both torques together."""
        return action.sum(keepdims=True)


PLACES: dict[str, Callable[[int], VecEnv]] = {
    "CheeseCorner, planes": lambda num_envs: vec_env("cheese-corner", num_envs, observation="planes"),
    "CheeseCorner, egocentric": lambda num_envs: vec_env("cheese-corner", num_envs, observation="egocentric"),
    "CheeseCorner, bytes": lambda num_envs: vec_env("cheese-corner", num_envs, observation="bytes"),
    "CartPole": lambda num_envs: make_vec_env("CartPole-v1", num_envs, env_kwargs={"max_episode_steps": 12}),
    "Pendulum, two torques": lambda num_envs: make_vec_env(TwoTorques, num_envs),
}
"""Environments of every kind of observation and action; episodes are short, and some end, some are cut off."""


@dataclass(frozen=True)
class Subject:
    """A module as it is checked.

    Attributes:
        kind: makes it: a class, or any function, with the arguments ``weight`` and ``seed``.
        place: one of ``PLACES``.
        wrap: puts modules around environments; called as ``with_rewards(envs, intrinsic=..., update_every=...)``.
        callback: makes what else the integration needs in a training.
    """

    kind: Callable[..., Curiosity]
    place: str
    wrap: Callable[..., VecEnv] = with_rewards
    callback: Callable[[], BaseCallback] | None = None

    def make(self, num_envs: int = ENVS, weight: float = 1.0) -> Curiosity:
        """The module, set up for the place."""
        module = self.kind(weight=weight, seed=0)
        module.setup(*spaces_of(self.place), num_envs)
        return module

    def envs(self, num_envs: int = ENVS) -> VecEnv:
        """The place, without any module."""
        return PLACES[self.place](num_envs)

    def steps(self) -> list[Transitions]:
        """Steps of random play in ``ENVS`` environments."""
        return copy.deepcopy(_random_play(self.place))

    def episodes(self) -> list[list[Transitions]]:
        """Episodes of random play, the longest first, as if environment 0 had had them; a row is a step."""
        found: dict[tuple[int, int], list[Transitions]] = {}
        for step in self.steps():
            for row in range(ENVS):
                one = step[row : row + 1]
                found.setdefault((row, int(one.episodes[0])), []).append(placed(one, 0))
        return sorted(found.values(), key=len, reverse=True)


Check = Callable[[Subject], str | None]


@cache
def spaces_of(place: str) -> tuple[spaces.Space, spaces.Space]:
    """Those of observations and actions in a place."""
    envs = PLACES[place](1)
    return envs.observation_space, envs.action_space


@cache
def _random_play(place: str) -> list[Transitions]:
    seen: list[Transitions] = []

    def watch(transitions: Transitions) -> np.ndarray:
        seen.append(transitions)
        return transitions.rewards

    envs = with_rewards(PLACES[place](ENVS), watch)
    envs.seed(0)
    envs.reset()
    envs.action_space.seed(0)
    for _ in range(STEPS):
        envs.step(np.stack([envs.action_space.sample() for _ in range(ENVS)]))
    return seen


def placed(step: Transitions, environment: int, **more: int) -> Transitions:
    """One step, as if it had happened in another environment, or with other numbers of ``steps`` or ``episodes``."""
    numbers = {"environments": environment} | more
    return replace(step, **{name: np.full(len(step), number) for name, number in numbers.items()})


def lived(module: Curiosity, steps: Sequence[Transitions]) -> np.ndarray:
    """The bonuses of steps, ``[T, B]``, asked for as the stack does, with an update now and then."""
    paid = []
    for number, step in enumerate(steps, start=1):
        paid.append(module.bonus(step))
        module.observe(step)
        if number % BETWEEN_UPDATES == 0:
            module.update(Transitions.joined(steps[number - BETWEEN_UPDATES : number]))
    return np.array(paid)


def distinct(steps: Transitions) -> Transitions:
    """The first of those rows that begin, or end, with the same observation: modules may count the others up."""
    for name in ("next_observations", "observations"):
        flat = getattr(steps, name).reshape(len(steps), -1)
        steps = steps[np.sort(np.unique(flat, axis=0, return_index=True)[1])]
    return steps


def subjects(kind: Callable[..., Curiosity]) -> Iterator[Subject]:
    """A module in every place."""
    return (Subject(kind, place) for place in PLACES)
