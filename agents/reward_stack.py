"""Rewards for training: an extrinsic reward and intrinsic bonuses, mixed before advantages are computed."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from astray.envs import InputError
from astray.envs.rewards import parse_reward


@dataclass(frozen=True)
class Transitions:
    """One step of B environments.

    Attributes:
        observations: what the agent saw, ``[B, ...]``.
        actions: what it did, ``[B]``.
        next_observations: what it saw next, ``[B, ...]``: at an episode's end the true last observation, never the
            next episode's first.
        terminated: ``bool[B]``.
        truncated: ``bool[B]``.
        rewards: the world's own reward, ``float64[B]``.
        happened: name to ``float64[B]``: 1 where an event happened, where a goal was reached for the first time in
            the episode, and ``step`` everywhere.
        episodes: number of the episode in its environment, ``int64[B]``.
    """

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    rewards: np.ndarray
    happened: Mapping[str, np.ndarray]
    episodes: np.ndarray


class Curiosity(Protocol):
    """An intrinsic reward. One class each; see ``astray.agents.rnd``."""

    weight: float

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The bonus before its weight, ``float64[B]``; changes nothing."""
        ...

    def observe(self, transitions: Transitions) -> None:
        """Remembers what happened (normalisers, episodic memory)."""
        ...

    def update(self, transitions: list[Transitions]) -> dict[str, float]:
        """Learns from the steps since the last update; returns what to log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the module learned."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state_dict``."""
        ...


class RewardStack(VecEnvWrapper):
    """Replaces the reward by extrinsic + weighted bonuses, and trains the curiosity modules by itself.

    Every component of a step stays in ``infos[i]["rewards"]`` ("world", "extrinsic", and each module's bonus times
    its weight); ``infos[i]["episode"]``, and so SB3's ``ep_rew_mean``, remains the world's own.
    """

    def __init__(
        self,
        venv: VecEnv,
        extrinsic: str | Callable[[Transitions], np.ndarray],
        intrinsic: Mapping[str, Curiosity],
        update_every: int,
    ):
        super().__init__(venv)
        known = venv.has_attr("event_names") and venv.has_attr("goals")
        self.event_names: tuple[str, ...] = venv.get_attr("event_names", 0)[0] if known else ()
        self.goals: dict[str, str] = venv.get_attr("goals", 0)[0] if known else {}
        if callable(extrinsic):
            self._extrinsic = extrinsic
        else:
            names = ("world", "step", *self.goals, *self.event_names)
            expression = parse_reward(extrinsic, names)
            self._extrinsic = lambda transitions: expression(transitions.happened)
        self.intrinsic = dict(intrinsic)
        self.update_every = update_every
        self.metrics: dict[str, float] = {}
        self._buffer: list[Transitions] = []
        self._visited = {goal: np.zeros(venv.num_envs, bool) for goal in self.goals}
        self._episodes = np.zeros(venv.num_envs, np.int64)
        self._observations = self._actions = np.zeros(0)

    def reset(self) -> VecEnvObs:
        """Resets the environments."""
        observations = self.venv.reset()
        if not isinstance(observations, np.ndarray):
            raise TypeError("with_rewards needs observations that are one array, not a dict or tuple")
        self._observations = observations.copy()
        for visited in self._visited.values():
            visited[:] = False
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Sends the actions on."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Steps, pays, and every ``update_every`` environment steps trains the modules."""
        observations, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(observations, np.ndarray)
        transitions = self._transitions(observations, rewards, dones, infos)
        components = {
            "world": transitions.rewards,
            "extrinsic": np.broadcast_to(self._extrinsic(transitions), rewards.shape).astype(np.float64),
        }
        for name, module in self.intrinsic.items():
            components[name] = module.weight * module.bonus(transitions)
        for module in self.intrinsic.values():
            module.observe(transitions)
        if self.intrinsic:
            self._buffer.append(transitions)
            if len(self._buffer) * self.num_envs >= self.update_every:
                for name, module in self.intrinsic.items():
                    self.metrics |= {f"{name}/{key}": v for key, v in module.update(self._buffer).items()}
                self._buffer = []
        for row, info in enumerate(infos):
            info["rewards"] = {name: float(values[row]) for name, values in components.items()}
        self._observations = observations.copy()
        total = sum(values for name, values in components.items() if name != "world")
        return observations, np.asarray(total, np.float32), dones, infos

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on: the modules, their steps to come, and the environments.

        The environments below need a ``get_state`` too, as ``vec_env`` has it.
        """
        envs: Any = self.venv
        return {
            "envs": envs.get_state(),
            "modules": {name: module.state_dict() for name, module in self.intrinsic.items()},
            "buffer": [asdict(transitions) for transitions in self._buffer],
            "visited": {goal: visited.copy() for goal, visited in self._visited.items()},
            "episodes": self._episodes.copy(),
            "observations": self._observations.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where ``get_state`` was."""
        envs: Any = self.venv
        envs.set_state(state["envs"])
        for name, module in self.intrinsic.items():
            module.load_state_dict(state["modules"][name])
        self._buffer = [Transitions(**transitions) for transitions in state["buffer"]]
        self._visited = {goal: visited.copy() for goal, visited in state["visited"].items()}
        self._episodes = state["episodes"].copy()
        self._observations = state["observations"].copy()

    def _transitions(
        self, observations: np.ndarray, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> Transitions:
        nexts = observations.copy()
        truncated = np.zeros(self.num_envs, bool)
        happened = {name: np.zeros(self.num_envs) for name in self.event_names}
        for row, info in enumerate(infos):
            for name in info.get("events", ()):
                happened[name][row] = 1.0
            if dones[row]:
                nexts[row] = info["terminal_observation"]
                truncated[row] = info.get("TimeLimit.truncated", False)
        for goal, visited in self._visited.items():
            now = happened[self.goals[goal]] > 0
            # Where a goal and its event have the same name, the goal wins: the first visit counts.
            happened[goal] = (now & ~visited).astype(np.float64)
            visited |= now
            visited[dones] = False
        world = np.asarray(rewards, np.float64)
        episodes = self._episodes.copy()
        self._episodes += dones
        return Transitions(
            observations=self._observations,
            actions=self._actions,
            next_observations=nexts,
            terminated=dones & ~truncated,
            truncated=truncated,
            rewards=world,
            happened=happened | {"step": np.ones(self.num_envs), "world": world},
            episodes=episodes,
        )


def with_rewards(
    envs: VecEnv,
    extrinsic: str | Callable[[Transitions], np.ndarray] = "world",
    intrinsic: Mapping[str, Curiosity] | None = None,
    update_every: int = 512,
) -> RewardStack:
    """Environments that pay another reward.

    Args:
        envs: any Stable-Baselines3 ``VecEnv``.
        extrinsic: an expression over the world's events and goals (a goal pays at its first visit in an episode),
            ``step`` and ``world`` (the world's own reward), such as ``"cheese - 0.01*step"``; or a function of
            ``Transitions``.
        intrinsic: curiosity modules by name.
        update_every: environment steps between the modules' updates.

    Raises:
        InputError: the expression cannot be parsed, or ``update_every`` is not positive.
    """
    if update_every < 1:
        raise InputError(f"update_every={update_every} must be at least 1")
    return RewardStack(envs, extrinsic, intrinsic or {}, update_every)
