"""What a step pays: an extrinsic reward and weighted bonuses, from true transitions, in any environment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from astray.agents.curiosity import Annealed, Curiosity
from astray.agents.reading import as_rows
from astray.agents.transitions import Transitions
from astray.envs import InputError
from astray.envs.rewards import parse_reward


@runtime_checkable
class Composed(Protocol):
    """A reward made of others, which may be expressions: it learns which names there are before it pays."""

    def bind(self, names: Sequence[str]) -> Callable[[Transitions], np.ndarray]:
        """The reward as a function of transitions, given the names of goals and events."""
        ...


Reward = str | Callable[[Transitions], np.ndarray] | Composed
RESERVED = ("world", "extrinsic", "total")


class Rewards:
    """What steps of some environments pay; behind ``RewardStack`` and ``RewardWrapper``.

    Attributes:
        intrinsic: modules by name.
        apart: names of those whose bonuses are no part of the reward.
        metrics: what the modules told at their last update, as ``"rnd/loss"``.
    """

    def __init__(
        self,
        extrinsic: Reward,
        intrinsic: Mapping[str, Curiosity],
        update_every: int,
        clip: float | None,
        apart: Sequence[str],
    ):
        if update_every < 1:
            raise InputError(f"update_every={update_every} must be at least 1")
        if clip is not None and clip <= 0:
            raise InputError(f"clip={clip} must be positive")
        for name, module in intrinsic.items():
            if name in RESERVED or "/" in name:
                raise InputError(f"intrinsic: a module cannot be called {name!r}; {', '.join(RESERVED)} are taken")
            twin = next((other for other, one in intrinsic.items() if one is module and other != name), None)
            if twin is not None:
                raise InputError(f"intrinsic: {twin!r} and {name!r} are one module; make one for each name")
        if unknown := [name for name in apart if name not in intrinsic]:
            raise InputError(f"apart={list(apart)}: no module is called {unknown[0]!r}; there are {list(intrinsic)}")
        self.extrinsic, self.intrinsic = extrinsic, dict(intrinsic)
        self.update_every, self.clip, self.apart = update_every, clip, tuple(apart)
        self.metrics: dict[str, float] = {}
        self._names = ("world", "extrinsic", *intrinsic, "total")
        self._sums = np.zeros(len(self._names))
        self._steps = self._told = 0
        self._buffer: list[Transitions] = []
        self._apart: list[Any] = []

    def bind(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        num_envs: int,
        event_names: Sequence[str],
        goals: Mapping[str, str],
    ) -> None:
        """Prepares for environments.

        Raises:
            InputError: the expression cannot be parsed, or a module cannot read these spaces.
        """
        self.observation_space, self.num_envs = observation_space, num_envs
        self.event_names, self.goals = tuple(event_names), dict(goals)
        self._pay = bound(self.extrinsic, (*self.goals, *self.event_names))
        for name, module in self.intrinsic.items():
            try:
                module.setup(observation_space, action_space, num_envs)
            except InputError as error:
                raise InputError(f"intrinsic[{name!r}]: {error}") from None
        self._ever = {name: np.zeros(num_envs, bool) for name in self.event_names}
        self._episodes = np.full(num_envs, -1, np.int64)
        self._in_episode = np.zeros(num_envs, np.int64)
        self._observations = np.zeros(0)

    def started(self, observations: Any) -> None:
        """New episodes in all environments."""
        self._observations = as_rows(observations, self.observation_space).copy()
        for ever in self._ever.values():
            ever[:] = False
        self._episodes += (self._in_episode > 0) | (self._episodes < 0)
        self._in_episode[:] = 0

    def stepped(
        self,
        actions: np.ndarray,
        observations: Any,
        rewards: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> np.ndarray:
        """The total reward of a step, ``float32[B]``; writes the components into the infos, trains the modules.

        Raises:
            InputError: a reward is no number, or there is not one for each environment.
        """
        rows = as_rows(observations, self.observation_space)
        transitions = self._transitions(actions, rows, rewards, dones, infos)
        components = {"world": transitions.rewards}
        components["extrinsic"] = self._checked("extrinsic", self._pay(transitions), transitions)
        total = components["extrinsic"]
        for name, module in self.intrinsic.items():
            components[name] = self._weight(module) * self._checked(name, module.bonus(transitions), transitions)
            if name not in self.apart:
                total = total + components[name]
        total = self._clipped(total)
        if self.apart:
            self._apart.append(sum(components[name] for name in self.apart))
        for module in self.intrinsic.values():
            module.observe(transitions)
        self._steps += self.num_envs
        if self.intrinsic:
            self._buffer.append(transitions)
            if len(self._buffer) * self.num_envs >= self.update_every:
                self._update()
        self._tell(components | {"total": total}, infos)
        self._observations = rows.copy()
        return total.astype(np.float32)

    def take_apart(self) -> np.ndarray:
        """The bonuses that are no part of the reward, ``float64[T, B]`` of the T steps since the last call."""
        taken, self._apart = np.reshape(self._apart, (-1, self.num_envs)), []
        return taken

    def fixed(self, components: Mapping[str, float]) -> float:
        """What of a step's components stays as it is when bonuses are computed again later."""
        kept = [name for name, module in self.intrinsic.items() if module.episodic and name not in self.apart]
        return components["extrinsic"] + sum(components[name] for name in kept)

    def relabelled(self, transitions: Transitions, fixed: np.ndarray) -> np.ndarray:
        """What stored steps would pay now, ``float64[B]``.

        Args:
            transitions: of any environments and times; only what modules need that are not ``episodic`` is there.
            fixed: what was ``fixed`` of each, ``float64[B]``.
        """
        for name, module in self.intrinsic.items():
            if not module.episodic and name not in self.apart:
                fixed = fixed + self._weight(module) * module.bonus(transitions)
        return self._clipped(fixed)

    def told(self) -> dict[str, float]:
        """Means of each component over the steps since the last call, and the modules' metrics."""
        means = dict(zip(self._names, (self._sums / max(self._told, 1)).tolist(), strict=True))
        self._sums, self._told = np.zeros(len(self._names)), 0
        return {f"rewards/{name}": mean for name, mean in means.items()} | {
            f"curiosity/{name}": value for name, value in self.metrics.items()
        }

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on, without the environments."""
        return {
            "modules": {name: module.state_dict() for name, module in self.intrinsic.items()},
            "buffer": [asdict(transitions) for transitions in self._buffer],
            "ever": {name: ever.copy() for name, ever in self._ever.items()},
            "episodes": self._episodes.copy(),
            "in_episode": self._in_episode.copy(),
            "observations": self._observations.copy(),
            "steps": self._steps,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where ``get_state`` was."""
        for name, module in self.intrinsic.items():
            module.load_state_dict(state["modules"][name])
        self._buffer = [Transitions(**transitions) for transitions in state["buffer"]]
        self._ever = {name: ever.copy() for name, ever in state["ever"].items()}
        self._episodes, self._in_episode = state["episodes"].copy(), state["in_episode"].copy()
        self._observations, self._steps = state["observations"].copy(), state["steps"]

    def _weight(self, module: Curiosity) -> float:
        return module.weight(self._steps) if isinstance(module.weight, Annealed) else module.weight

    def _clipped(self, total: np.ndarray) -> np.ndarray:
        return total if self.clip is None else total.clip(-self.clip, self.clip)

    def _update(self) -> None:
        joined = Transitions.joined(self._buffer)
        for name, module in self.intrinsic.items():
            self.metrics |= {f"{name}/{key}": value for key, value in module.update(joined).items()}
        self._buffer = []

    def _tell(self, components: Mapping[str, np.ndarray], infos: list[dict[str, Any]]) -> None:
        table = np.array(list(components.values()))
        for info, values in zip(infos, table.T.tolist(), strict=True):
            info["rewards"] = dict(zip(self._names, values, strict=True))
        self._sums += table.sum(axis=1)
        self._told += len(infos)

    def _transitions(
        self, actions: np.ndarray, rows: np.ndarray, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> Transitions:
        nexts = rows.copy()
        truncated = np.zeros(self.num_envs, bool)
        for row in np.flatnonzero(dones).tolist():
            last = batch_of_one(infos[row]["terminal_observation"])
            nexts[row] = as_rows(last, self.observation_space)[0]
            truncated[row] = infos[row].get("TimeLimit.truncated", False)
        happened = {name: np.zeros(self.num_envs) for name in self.event_names}
        for row, info in enumerate(infos if self.event_names else ()):
            for name in info.get("events", ()):
                happened[name][row] = 1.0
        first = {goal: happened[event] * ~self._ever[event] for goal, event in self.goals.items()}
        for name, values in happened.items():
            self._ever[name] |= values > 0
        reached = {goal: self._ever[event] for goal, event in self.goals.items()}
        world = np.asarray(rewards, np.float64)
        transitions = Transitions(
            observations=self._observations,
            actions=np.array(actions),
            next_observations=nexts,
            terminated=dones & ~truncated,
            truncated=truncated,
            rewards=world,
            # Where a goal and its event have the same name, the goal wins: the first visit counts.
            happened=happened | first | {"step": np.ones(self.num_envs), "world": world},
            ever={name: ever.copy() for name, ever in (self._ever | reached).items()},
            environments=np.arange(self.num_envs),
            episodes=self._episodes.copy(),
            steps=self._in_episode.copy(),
        )
        for ever in self._ever.values():
            ever[dones] = False
        self._episodes += dones
        self._in_episode = np.where(dones, 0, self._in_episode + 1)
        return transitions

    def _checked(self, name: str, values: Any, transitions: Transitions) -> np.ndarray:
        values = np.asarray(values, np.float64)
        if values.shape not in ((), (self.num_envs,)):
            raise InputError(
                f"{name} gave rewards of shape {values.shape}: it must be ({self.num_envs},), one for each environment"
            )
        values = values if values.shape else np.full(self.num_envs, values)
        if not np.isfinite(values.sum()):  # which is not if any is not, and costs less than to ask each
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(
                f"{name} gave {values[row]} for environment {row} at step {transitions.steps[row]} of its episode "
                f"{transitions.episodes[row]}, after {self._steps} steps of all environments; rewards must be finite"
            )
        return values


def bound(reward: Reward, names: Sequence[str]) -> Callable[[Transitions], np.ndarray]:
    """A reward as a function of transitions.

    Args:
        reward: an expression over ``world``, ``step`` and the names, a reward made of others, or a function already.
        names: of goals and events.

    Raises:
        InputError: the expression cannot be parsed, or it is neither.
    """
    if isinstance(reward, Composed):
        return reward.bind(names)
    if callable(reward):
        return reward
    if not isinstance(reward, str):
        raise InputError(f"extrinsic={reward!r} must be an expression such as 'world - 0.01*step', or a function")
    expression = parse_reward(reward, ("world", "step", *names))
    return lambda transitions: expression(transitions.happened)


def batch_of_one(observation: Any) -> Any:
    """An observation as a ``VecEnv`` of one environment would give it."""
    if isinstance(observation, Mapping):
        return {key: np.asarray(value)[None] for key, value in observation.items()}
    if isinstance(observation, tuple):
        return [np.asarray(value)[None] for value in observation]
    return np.asarray(observation)[None]
